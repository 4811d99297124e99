package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics counts what a server does.
type metrics struct {
	registry     *prometheus.Registry
	requests     *prometheus.CounterVec // by path and status
	seconds      *prometheus.HistogramVec
	first        prometheus.Histogram
	refused      prometheus.Counter
	running      prometheus.Gauge
	promptTokens prometheus.Counter
	cachedTokens prometheus.Counter
	newTokens    prometheus.Counter
}

func newMetrics(s *Server) *metrics {
	count := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "bitnet1_api_" + name, Help: help})
	}
	seconds := prometheus.ExponentialBuckets(0.001, 4, 9)
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bitnet1_api_requests_total",
			Help: "Requests answered, by path and status."}, []string{"path", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "bitnet1_api_request_seconds",
			Help: "Time from a request's headers to the end of its answer, seconds.", Buckets: seconds}, []string{"path"}),
		first: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "bitnet1_api_first_token_seconds",
			Help: "Time from a request to the first token of its answer, seconds.", Buckets: seconds}),
		refused: count("refused_total", "Requests turned away because too many were inside."),
		running: prometheus.NewGauge(prometheus.GaugeOpts{Name: "bitnet1_api_running",
			Help: "Requests for which the model computes."}),
		promptTokens: count("prompt_tokens_total", "Tokens of prompts that were computed."),
		cachedTokens: count("cached_tokens_total", "Tokens of prompts that had been computed for an earlier request."),
		newTokens:    count("written_tokens_total", "Tokens written."),
	}
	inside := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "bitnet1_api_inside",
		Help: "Requests that were admitted: those for which the model computes, and those that wait."},
		func() float64 { return float64(len(s.inside)) })
	m.registry.MustRegister(m.requests, m.seconds, m.first, m.refused, m.running, inside, m.promptTokens, m.cachedTokens,
		m.newTokens, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// serve answers in the format OpenMetrics, or in that of Prometheus before it, as the request asks.
func (m *metrics) serve(w http.ResponseWriter, r *http.Request) {
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
}

// count counts the requests of a path.
func (m *metrics) count(path string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		began, status := time.Now(), &statusWriter{ResponseWriter: w, status: http.StatusOK}
		h(status, r)
		m.requests.WithLabelValues(path, strconv.Itoa(status.status)).Inc()
		m.seconds.WithLabelValues(path).Observe(time.Since(began).Seconds())
	}
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader is part of http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap gives http.ResponseController what is below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
