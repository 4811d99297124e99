package stage

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"bitnet1/shared/run/web"
)

// metrics counts what a serving stage does. They are collected always and served with --metrics ADDRESS, as OpenMetrics
// to a client that asks for that and in Prometheus' text format to others. docs/recipes/metrics.md describes them.
type metrics struct {
	registry   *prometheus.Registry
	deliveries prometheus.Counter
	jobs       *prometheus.CounterVec // by outcome
	seconds    prometheus.Histogram
	working    prometheus.Gauge
	ratio      *prometheus.GaugeVec // by run
	values     *prometheus.GaugeVec // by run and name

	mu     sync.Mutex
	atWork int // jobs: what they last reported is forgotten when none is left
}

func newMetrics(stage, version string) *metrics {
	labels := prometheus.Labels{"stage": stage}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}
	}
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
		working: prometheus.NewGauge(gauge("bitnet1_working_jobs", "Jobs that are being done.")),
		ratio: prometheus.NewGaugeVec(gauge("bitnet1_progress_ratio",
			"Share of the job that is done, 0 to 1, as it last reported. Absent while nothing is done."), []string{"run"}),
		values: prometheus.NewGaugeVec(gauge("bitnet1_progress_value",
			"Measurements of the job that last reported, such as loss or tokens_per_second."), []string{"run", "name"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "bitnet1_stage_info", Help: "1: which version of the stage this is.",
		ConstLabels: prometheus.Labels{"stage": stage, "version": version},
	})
	info.Set(1)
	// Among go_memstats_… are a counter and a gauge whose names OpenMetrics takes for one.
	m.registry.MustRegister(m.deliveries, m.jobs, m.seconds, m.working, m.ratio, m.values, info,
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled()),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// begin counts a job at work, until end is called.
func (m *metrics) begin() (end func()) {
	m.add(1)
	return func() { m.add(-1) }
}

func (m *metrics) add(jobs int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.atWork += jobs
	m.working.Set(float64(m.atWork))
	if m.atWork == 0 {
		m.ratio.Reset()
		m.values.Reset()
	}
}

// reporting has what jobs report become metrics, and passes it on.
func (m *metrics) reporting(next func(run, key string) func(Progress)) func(run, key string) func(Progress) {
	return func(run, key string) func(Progress) {
		pass := next(run, key)
		return func(p Progress) {
			m.progress(run, p)
			pass(p)
		}
	}
}

func (m *metrics) progress(run string, p Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.atWork == 0 {
		return // of a job that has just ended
	}
	m.ratio.WithLabelValues(run).Set(p.Fraction())
	for name, v := range p.Values {
		m.values.WithLabelValues(run, name).Set(v)
	}
}

// handler answers with the metrics.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// listen serves the metrics on /metrics until ctx ends.
func (m *metrics) listen(ctx context.Context, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("--metrics %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if web.IsLoopback(address) && !web.Calls(r) {
			http.Error(w, "these metrics are for programs of this machine alone", http.StatusMisdirectedRequest)
			return
		}
		m.handler().ServeHTTP(w, r)
	})
	srv := web.Server(mux)
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() { _ = srv.Serve(web.Listener(l)) }()
	return nil
}
