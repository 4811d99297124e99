package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image/png"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/measure/history/historytest"
)

func run(t *testing.T, args ...string) (said string, err error) {
	t.Helper()
	var out bytes.Buffer
	app := newApp()
	app.Writer, app.ErrWriter = &out, &out
	err = app.Run(append([]string{"report"}, args...))
	return out.String(), err
}

func mustRun(t *testing.T, args ...string) (page, path string) {
	t.Helper()
	said, err := run(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	path = strings.TrimSpace(said)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), path
}

// wants makes sure that a page has texts.
func wants(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			t.Errorf("the page lacks %s", text)
		}
	}
}

// The page has every number of the run in its tables, and says what each is.
func TestReportHasTheNumbers(t *testing.T) {
	data := t.TempDir()
	historytest.Make(t, data, "r", historytest.Options{Muon: true})
	page, path := mustRun(t, "--data", data, "--run", "r")
	if want := filepath.Join(data, "runs", "r", "report", "report.html"); path != want {
		t.Errorf("written to %s, want %s", path, want)
	}
	wants(t, page,
		"finished; pipeline v76, preset nano, seed 7;", "begun 2026-01-02 03:04:05 UTC",
		// the table of results, as `pipeline runs` prints it, and what its columns are
		`<td class="left">12</td><td class="left"></td><td>4.792 ± 0.016</td><td>7.500</td>`,
		`<td class="left">12</td><td class="left">sequences=2</td><td>5.792</td>`,
		"<dd>loss of a model that knows frequencies alone</dd>", "<td>L1.H1</td><td>48.0 %</td><td>6.2 %</td>",
		// the training log: step, tokens, seconds, loss, learning rate
		"<td>4</td><td>4 000</td><td>2</td><td>6</td><td>0.00145455</td>",
		// heads, times, parameters, data, machine, commands
		"<td>6</td><td>1</td><td>0</td><td>0.5</td><td></td><td>0.18</td>", "<td>2.5</td><td>1.25</td>",
		`<td class="left">train.muon_learning_rate</td><td class="left wrap">0.06</td>`,
		"books.parquet", "<td>4 321</td><td>18</td><td>17</td><td>2 345</td><td>6 789</td>", "cpu, 2 workers, made up",
		">Muon</text>",
		"pipeline run --preset nano pipelines/v76.yml\nevaluate run --run r --checkpoint 12 --sequences=2",
		"report --run r",
		// baselines beside measures
		"Dashed: Loss of a model that knows frequencies alone.", "A random key has 6.2 %.", ">unigram</text>",
	)
	for _, foreign := range []string{"<script", "src=", "href=\"http", "@import", "url("} {
		if strings.Contains(page, foreign) {
			t.Errorf("the page is not by itself: it has %s", foreign)
		}
	}
	if strings.Contains(page, "What is missing") {
		t.Error("nothing is missing, and the page says that something is")
	}
}

// The figures of the page are also files of two formats, with the points where they should be.
func TestFigures(t *testing.T) {
	data := t.TempDir()
	historytest.Make(t, data, "r", historytest.Options{Muon: true})
	page, path := mustRun(t, "--data", data, "--run", "r")
	for _, name := range []string{"loss-steps", "loss-tokens", "loss-seconds", "measure-bits_per_token", "measure-ipmr",
		"learning-rate", "weight-decay", "gamma", "gradient-norm", "ipmr", "hdr", "distances", "speed", "operations"} {
		wants(t, page, "<code>"+name+"</code>")
		svg, err := os.ReadFile(filepath.Join(filepath.Dir(path), name+".svg"))
		if err == nil {
			err = xml.Unmarshal(svg, new(struct{}))
		}
		if err != nil || !strings.Contains(page, string(svg)) {
			t.Errorf("%s.svg: %v; it is to be the picture of the page", name, err)
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(path), name+".png"))
		if err != nil {
			t.Error(err)
		} else if picture, err := png.Decode(bytes.NewReader(b)); err != nil || picture.Bounds().Dx() < 1000 {
			t.Errorf("%s.png: %v", name, err)
		}
	}
	// What figures count is in the units of their axes; distances are added up over the heads of a layer.
	for name, text := range map[string]string{"loss-steps": ">12<", "loss-tokens": ">0.012<", "loss-seconds": ">6<",
		"distances": ">71<"} {
		svg, err := os.ReadFile(filepath.Join(filepath.Dir(path), name+".svg"))
		if err != nil || !strings.Contains(string(svg), text) {
			t.Errorf("%s.svg lacks %s (%v)", name, text, err)
		}
	}
	// IPMR lies on a line: 0.12, 0.24, 0.36, 0.48 at steps 3, 6, 9, 12.
	svg, err := os.ReadFile(filepath.Join(filepath.Dir(path), "measure-ipmr.svg"))
	if err != nil {
		t.Fatal(err)
	}
	at := corners(t, string(svg), "#0072B2")
	if len(at) != 4 {
		t.Fatalf("corners %v, want one for each checkpoint", at)
	}
	for i := range 3 {
		if dx, dy := at[i+1][0]-at[i][0], at[i+1][1]-at[i][1]; dx <= 0 || dy <= 0 ||
			abs(dx-(at[1][0]-at[0][0])) > 0.05 || abs(dy-(at[1][1]-at[0][1])) > 0.05 {
			t.Errorf("corners %v, want equal steps up to the right", at)
		}
	}
}

func abs(v float64) float64 { return max(v, -v) }

// corners are those of the last line of a colour.
func corners(t *testing.T, svg, color string) (all [][2]float64) {
	t.Helper()
	m := regexp.MustCompile(`<path d="M([^"]*)" style="[^"]*stroke:`+color).FindAllStringSubmatch(svg, -1)
	if len(m) == 0 {
		t.Fatalf("no line of colour %s", color)
	}
	for corner := range strings.SplitSeq(m[len(m)-1][1], "L") {
		var p [2]float64
		if _, err := fmt.Sscanf(corner, "%g,%g", &p[0], &p[1]); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// Several runs are drawn into one figure, and the page says in what they differ.
func TestCompare(t *testing.T) {
	data := t.TempDir()
	historytest.Make(t, data, "plain", historytest.Options{})
	historytest.Make(t, data, "muon", historytest.Options{Muon: true, Shift: -1})
	page, path := mustRun(t, "--data", data, "--run", "plain", "--compare", "muon")
	if want := filepath.Join(data, "experiments", "report-plain", "report.html"); path != want {
		t.Errorf("written to %s, want %s", path, want)
	}
	wants(t, page, "Run plain beside muon", "Parameters in which the runs differ",
		`<td class="left">train.optimizer</td><td class="left">adamw</td><td class="left wrap">muon</td>`,
		`<td class="left">plain</td><td>12</td><td>4.792 ± 0.016</td>`,
		`<td class="left">muon</td><td>12</td><td>3.792 ± 0.016</td>`,
		"<code>ipmr-1</code>", "<code>ipmr-2</code>", "report --run plain --compare muon")
	differing, _, _ := strings.Cut(page[strings.Index(page, "in which the runs differ"):], "</table>")
	if strings.Contains(differing, "train.learning_rate<") {
		t.Error("a parameter that is the same in both runs is said to differ")
	}
	svg, err := os.ReadFile(filepath.Join(filepath.Dir(path), "loss-steps.svg"))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, string(svg), ">plain</text>", ">muon</text>")
	if a, b := corners(t, string(svg), "#0072B2"), corners(t, string(svg), "#E69F00"); a[5][1] <= b[5][1] {
		t.Errorf("the run of the higher loss is at %v, the other at %v", a[5], b[5])
	}
	for want, args := range map[string][]string{
		"given twice":       {"--run", "plain", "--compare", "plain"},
		"did you mean muon": {"--run", "plain", "--compare", "muo"},
		"name runs with":    {"--run", "plain", "muon"},
	} {
		_, err := run(t, append([]string{"--data", data}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

// Names of others are text on the page, and equal runs have equal bytes.
func TestHostileNamesAndEqualBytes(t *testing.T) {
	data := t.TempDir()
	historytest.Make(t, data, "r", historytest.Options{Source: `<script>alert(1)</script>&"'.txt`})
	before := map[string]string{}
	for range 2 {
		page, path := mustRun(t, "--data", data, "--run", "r")
		wants(t, page, "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;&#39;.txt")
		if strings.Contains(page, "<script") {
			t.Error("the name of a source is part of the page's markup")
		}
		files := map[string]string{}
		err := fs.WalkDir(os.DirFS(filepath.Dir(path)), ".", func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				b, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
				files[name] = string(b)
				return err
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(before) > 0 && !maps.Equal(files, before) {
			t.Errorf("two reports of a run differ: %v", slices.Sorted(maps.Keys(files)))
		}
		before = files
	}
}

// A run that has hardly begun has a report, too: it says what is missing.
func TestReportOfAnEmptyRun(t *testing.T) {
	data := t.TempDir()
	historytest.Make(t, data, "r", historytest.Options{})
	for _, gone := range []string{"train", "logs", "launcher", "events/checkpoint.saved", "events/probe.written",
		"events/dataset.sealed", "events/run.finished", "tokenize"} {
		if err := os.RemoveAll(filepath.Join(data, "runs", "r", gone)); err != nil {
			t.Fatal(err)
		}
	}
	page, path := mustRun(t, "--data", data, "--run", "r")
	wants(t, page, "paused; pipeline v76", "What is missing",
		"the run has no checkpoint yet", "the run has no dataset yet",
		"The command of r was not kept.", "books.parquet")
	if figures, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.png")); len(figures) > 0 {
		t.Errorf("figures of nothing: %v", figures)
	}
}

func TestAReportIsOfARun(t *testing.T) {
	err := newApp().Run([]string{"report", "--data", t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "give --run RUN") {
		t.Errorf("no run is named: %v", err)
	}
}

// A folder that cannot be written is an error once, not once a figure.
func TestAReportThatCannotBeWritten(t *testing.T) {
	data := t.TempDir()
	historytest.Make(t, data, "r", historytest.Options{})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := newApp().Run([]string{"report", "--data", data, "--run", "r", "--out", filepath.Join(file, "report")})
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

// Short times have units that keep exponents away.
func TestSeconds(t *testing.T) {
	for s, want := range map[float64]string{70.06: "70.1 s", 0.0989: "98.9 ms", 0.000108: "108 µs", 8.62e-07: "862 ns",
		math.NaN(): "-"} {
		if got := seconds(s); got != want {
			t.Errorf("%g seconds are written %q, want %q", s, got, want)
		}
	}
}
