package stage

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics counts what a serving stage does. They are collected always and served, in the Prometheus text format, with
// --metrics ADDRESS.
type metrics struct {
	registry   *prometheus.Registry
	deliveries prometheus.Counter
	jobs       *prometheus.CounterVec // by outcome
	seconds    prometheus.Histogram
}

func newMetrics(stage string) *metrics {
	labels := prometheus.Labels{"stage": stage}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		deliveries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bitnet1_deliveries_total", Help: "Events delivered to the stage.", ConstLabels: labels,
		}),
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bitnet1_jobs_total", Help: "Jobs ended, by outcome: done, waiting, retried, failed.", ConstLabels: labels,
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "bitnet1_job_seconds", Help: "Time from delivery to outcome, seconds.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 10),
		}),
	}
	m.registry.MustRegister(m.deliveries, m.jobs, m.seconds, collectors.NewGoCollector())
	return m
}

// listen serves the metrics on /metrics until ctx ends.
func (m *metrics) listen(ctx context.Context, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("--metrics %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }()
	return nil
}
