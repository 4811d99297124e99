package stage

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"bitnet1/shared/pythontest"
)

// answered are metrics of a stage that has answered and works on one more job.
func answered() (m *metrics, end func()) {
	m = newMetrics("train", "7")
	m.deliveries.Inc()
	m.jobs.WithLabelValues("done").Inc()
	m.seconds.Observe(0.5)
	end = m.begin()
	pass := func(string, string) func(Progress) { return func(Progress) {} }
	m.reporting(pass)("r", "job")(Progress{Done: 3, Total: 12, Values: map[string]float64{"loss": 2.5}})
	return m, end
}

// scrape asks as a client that takes a format.
func scrape(t *testing.T, m *metrics, accept string) (text, format string) {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", accept)
	answer := httptest.NewRecorder()
	m.handler().ServeHTTP(answer, request)
	return answer.Body.String(), answer.Header().Get("Content-Type")
}

const openMetrics = "application/openmetrics-text; version=1.0.0"

// A client that asks for OpenMetrics gets it: each family with its type and help, a counter's samples with _total, and
// the end marked.
func TestOpenMetrics(t *testing.T) {
	m, end := answered()
	text, format := scrape(t, m, openMetrics)
	if !strings.HasPrefix(format, openMetrics) || !strings.HasSuffix(text, "\n# EOF\n") {
		t.Errorf("%s, which ends with %q", format, text[max(0, len(text)-20):])
	}
	for _, want := range []string{
		"# HELP bitnet1_deliveries Events", "# TYPE bitnet1_deliveries counter\n",
		`bitnet1_deliveries_total{stage="train"} 1.0` + "\n",
		`bitnet1_jobs_total{outcome="done",stage="train"} 1.0` + "\n", "# TYPE bitnet1_job_seconds histogram\n",
		`bitnet1_job_seconds_sum{stage="train"} 0.5` + "\n", `bitnet1_working_jobs{stage="train"} 1.0` + "\n",
		`bitnet1_progress_ratio{run="r",stage="train"} 0.25` + "\n",
		`bitnet1_progress_value{name="loss",run="r",stage="train"} 2.5` + "\n",
		`bitnet1_stage_info{stage="train",version="7"} 1.0` + "\n", "# TYPE process_cpu_seconds counter\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	typed, helped := families(text, "TYPE"), families(text, "HELP")
	for i, family := range typed {
		if !slices.Contains(helped, family) || slices.Contains(typed[:i], family) {
			t.Errorf("%s has no help, or stands there twice", family)
		}
	}
	if plain, format := scrape(t, m, ""); !strings.HasPrefix(format, "text/plain") || strings.Contains(plain, "# EOF") {
		t.Errorf("who asks for nothing gets %s", format)
	}
	end() // what a job reported is no measurement of an idle stage
	if text, _ := scrape(t, m, openMetrics); strings.Contains(text, "bitnet1_progress") ||
		!strings.Contains(text, `bitnet1_working_jobs{stage="train"} 0.0`) {
		t.Errorf("after the last job:\n%s", text)
	}
}

func families(text, line string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^# `+line+` (\S+)`).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// Prometheus' own linter finds nothing, and the page about metrics has each of the stage's own.
func TestMetricsAreNamedAndDocumented(t *testing.T) {
	m, end := answered()
	defer end()
	all, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(all).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	page, err := os.ReadFile("../../../docs/recipes/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		name := family.GetName()
		if strings.HasPrefix(name, "bitnet1_") && !strings.Contains(string(page), "| `"+name+"` |") {
			t.Errorf("docs/recipes/metrics.md has no row for %s", name)
		}
	}
}

// A parser of others reads the metrics.
func TestOthersReadOpenMetrics(t *testing.T) {
	python := pythontest.Interpreter(t, "prometheus_client")
	m, end := answered()
	defer end()
	text, _ := scrape(t, m, openMetrics)
	cmd := exec.Command(python, "-c", `import sys
from prometheus_client.openmetrics import parser
for family in parser.text_string_to_metric_families(sys.stdin.read()):
    for s in family.samples:
        if family.name.startswith("bitnet1_") and not s.name.endswith("_bucket"):
            print(family.type, s.name, s.labels.get("outcome", ""), s.value)`)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"counter bitnet1_deliveries_total  1.0", "counter bitnet1_jobs_total done 1.0",
		"histogram bitnet1_job_seconds_count  1", "gauge bitnet1_progress_ratio  0.25"} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("the parser does not read %s:\n%s", want, out)
		}
	}
}
