package docs

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"bitnet1/shared/lm/trainlog"
)

// `task docs:figures` computes the figures of pages anew, if a processor computes them in minutes. The others are in
// testdata/figures.yml, with the commands that made them.

var figures = flag.String("figures", "", "make the figures of pages in this `folder`, and compare "+
	"them; -update writes them")

// TestFigures compares rows of tables exactly, because training and measuring give the same numbers on every machine.
func TestFigures(t *testing.T) {
	if *figures == "" {
		t.Skip("task docs:figures makes the figures, which takes a quarter of an hour on two free cores")
	}
	dir, err := filepath.Abs(*figures)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "pipeline sample && tokenize run --in data/sample/*.parquet --out tokens --preset nano")
	must(t, dir, "shard run --in tokens/*.arrow --out dataset --preset nano")

	const each = "--checkpoint-every 150 "
	t.Run("README", func(t *testing.T) {
		compareTerminal(t, must(t, dir, "pipeline run --preset nano "+pipelineFile(t, "v77.yml")))
	})
	t.Run("bonsai", func(t *testing.T) {
		strict, bonsai := trained(t, dir, "v76", each), trained(t, dir, "bonsai", each+"--anneal-binarize")
		compareRow(t, "recipes/bonsai.md", "v76", " %.3f | %s |", strict.bits, strict.sample())
		compareRow(t, "recipes/bonsai.md", "bonsai", " %.3f | %s |", bonsai.bits, bonsai.sample())
	})
	t.Run("truebit", func(t *testing.T) {
		strict := trained(t, dir, "v76", each)
		compareRow(t, "recipes/truebit.md", "v76, float latents", " %.3f | %s | |", strict.bits, strict.sample())
		for _, threshold := range []string{"3", "8", "16", "32", "100"} {
			r := trained(t, dir, "truebit-"+threshold, each+"--truebit --flip-threshold "+threshold)
			label := "truebit, threshold " + threshold
			compareRow(t, "recipes/truebit.md", label, " %.3f | %s | %.0f |", r.bits, r.sample(), r.flipped)
		}
	})
	t.Run("documents", func(t *testing.T) {
		packed, separate := trained(t, dir, "v76", each), trained(t, dir, "separate", each+"--documents separate")
		label := "nano on the sample corpus, 600 steps: `pipeline run --set train.documents=separate pipelines/v76.yml`, " +
			"bits/token of the last evaluation"
		compareRow(t, "recipes/models.md", label, " %.3f | %.3f |", packed.bits, separate.bits)
	})
	t.Run("v77", func(t *testing.T) {
		dense := firstNumber(t, "recipes/dense.md", "dense, Muon")
		compare := func(command string, r training) {
			t.Helper()
			compareRow(t, "recipes/models.md", "`task pipeline:"+command+"`", " %.3f | %.3f |", r.bits, r.bits-dense)
		}
		for _, name := range []string{"v75", "v76", "v77-strict", "v77"} {
			compare(name, trained(t, dir, name, each+sectionOfTrain(t, name+".yml")))
		}
		compare("v77 -- --set train.query_bits=4",
			trained(t, dir, "v77-queries", each+sectionOfTrain(t, "v77.yml")+" --query-bits 4"))
	})
	t.Run("gradients", func(t *testing.T) {
		for _, seed := range []string{"1", "2", "3"} {
			flags := "--checkpoint-every 200 --validation-sequences 256 --seed " + seed
			floats := trained(t, dir, "gradients-"+seed+"-16", flags+" --grad-bits 16")
			four := trained(t, dir, "gradients-"+seed+"-4", flags+" --grad-bits 4")
			compareRow(t, "recipes/gradients.md", seed, " %.3f | %.3f | %+.1f %% | | %.3f | %.3f |", floats.training,
				four.training,
				100*(four.training/floats.training-1), last(floats.validation), last(four.validation))
		}
	})
}

func last(all []float64) float64 { return all[len(all)-1] }

// training is the result of a training and of the evaluation of its last checkpoint, in bits per token.
type training struct {
	bits       float64   // of the whole validation split
	validation []float64 // of the trainer's sample, by checkpoint
	training   float64   // mean since the checkpoint before the last
	flipped    float64   // weights a step; NaN unless it is truebit
}

func (r training) sample() string {
	var all []string
	for _, v := range r.validation {
		all = append(all, fmt.Sprintf("%.3f", v))
	}
	return strings.Join(all, ", ")
}

func trained(t *testing.T, dir, name, flags string) training {
	t.Helper()
	must(t, dir, "train run --in dataset/manifest.json --out "+name+" --preset nano --steps 600 "+flags)
	last := name + "/step-000600.safetensors"
	must(t, dir, "evaluate run --in "+last+" --dataset dataset/manifest.json --out "+name+"-evaluation")
	var r training
	report, err := os.ReadFile(filepath.Join(dir, name+"-evaluation", "step-000600_evaluation.json"))
	if err != nil {
		t.Fatal(err)
	}
	var evaluation struct {
		Bits float64 `json:"bits_per_token"`
	}
	if err := json.Unmarshal(report, &evaluation); err != nil {
		t.Fatal(err)
	}
	r.bits = evaluation.Bits
	log, err := trainlog.Read(filepath.Join(dir, name, trainlog.FileName))
	if err != nil {
		t.Fatal(err)
	}
	flips, lines := 0.0, 0.0
	for _, line := range log {
		switch l := line.(type) {
		case trainlog.Step:
			flips, lines = flips+float64(l.Flipped), lines+1
		case trainlog.Checkpoint:
			r.training, r.validation = l.TrainBPC, append(r.validation, *l.ValBPC)
		}
	}
	r.flipped = flips / lines
	return r
}

// sectionOfTrain is what a pipeline file says of training, as flags.
func sectionOfTrain(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(pipelineFile(t, file))
	if err != nil {
		t.Fatal(err)
	}
	var definition struct {
		Stages struct{ Train map[string]any }
	}
	if err := yaml.Unmarshal(b, &definition); err != nil {
		t.Fatal(err)
	}
	var flags strings.Builder
	for key, value := range definition.Stages.Train {
		words := cmp.Or(strings.Trim(fmt.Sprint(value), "[]"), "none")
		fmt.Fprintf(&flags, " --%s %s", strings.ReplaceAll(key, "_", "-"), words)
	}
	return flags.String()
}

// compareRow compares the row of a page's table that has this first cell.
func compareRow(t *testing.T, page, label, format string, cells ...any) {
	t.Helper()
	text, row := rowOf(t, page, label)
	now := "| " + label + " |" + fmt.Sprintf(format, cells...)
	if row == now || row == "" {
		return
	}
	if *update {
		if err := os.WriteFile(page, []byte(strings.Replace(text, row, now, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("docs/%s\n  says %s\n  is   %s", page, row, now)
}

// rowOf is the text of a page, and the row of its tables that has this first cell. Where there is no such row, or
// several, the test fails and the row is "".
func rowOf(t *testing.T, page, label string) (text, row string) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin := "| " + label + " |"
	rows := regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(begin)+`.*$`).FindAllString(string(b), -1)
	if len(rows) != 1 {
		t.Errorf("docs/%s has %d rows that begin with %q", page, len(rows), begin)
		return string(b), ""
	}
	return string(b), rows[0]
}

// firstNumber is the first number of the row of a page's tables that has this first cell.
func firstNumber(t *testing.T, page, label string) (n float64) {
	t.Helper()
	_, row := rowOf(t, page, label)
	if _, err := fmt.Sscanf(row, "| "+label+" | %g", &n); err != nil {
		t.Fatalf("docs/%s: row %q: %v", page, row, err)
	}
	return n
}

var (
	measured = regexp.MustCompile(`(?m)^(dataset sealed|checkpoint |\s+\d+  ).*$`) // equal on all machines
	about    = regexp.MustCompile(`takes about (\d+) seconds`)
	took     = regexp.MustCompile(`finished in (\S+)`)
)

// factor is how many times faster or slower this machine may be than the one of the page.
const factor = 4

// compareTerminal compares the output on README with the output of the run.
func compareTerminal(t *testing.T, printed string) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(readme), "```text\nrun v77-nano-")
	shown, _, _ = strings.Cut(shown, "```")
	lines := measured.FindAllString(shown, -1)
	_, legend, _ := strings.Cut(shown, "\ncheckpoint  optimizer")
	legend, _, _ = strings.Cut(legend, "\n\n")
	lines = append(lines, strings.Split(legend, "\n")[1:]...)
	if len(lines) < 10 {
		t.Errorf("README.md shows %d results of a run", len(lines))
	}
	for _, line := range lines {
		if !strings.Contains(printed, line+"\n") {
			t.Errorf("README.md shows a line that the command does not print: %s", line)
		}
	}
	says, is := about.FindSubmatch(readme), took.FindStringSubmatch(printed)
	if says == nil {
		t.Error("README.md does not say how long the run takes")
	} else if is != nil { // a run that was finished before says nothing of its time
		page, _ := strconv.ParseFloat(string(says[1]), 64)
		here, err := time.ParseDuration(is[1])
		if err != nil || math.Abs(math.Log(here.Seconds()/page)) > math.Log(factor) {
			t.Errorf("README.md says %s, and it took %s (%v)", says[0], is[1], err)
		}
	}
	if t.Failed() {
		t.Logf("the command printed\n%s", printed)
	}
}

func pipelineFile(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "pipelines", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func must(t *testing.T, dir, command string) string {
	t.Helper()
	out, status := inShell(t, dir, command)
	if status != 0 {
		t.Fatalf("%s\nends with status %d:\n%s", command, status, out)
	}
	return out
}

// TestOtherFigures checks that the pages still show the figures of testdata/figures.yml, which are not made anew.
func TestOtherFigures(t *testing.T) {
	b, err := os.ReadFile("testdata/figures.yml")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ Page, Shows, Command, Commit, Why string }
	if err := yaml.Unmarshal(b, &list); err != nil || len(list) == 0 {
		t.Fatalf("%d figures, %v", len(list), err)
	}
	for _, f := range list {
		page, err := os.ReadFile(filepath.Join("..", f.Page))
		if err != nil {
			t.Fatal(err)
		}
		if f.Shows == "" || !strings.Contains(string(page), f.Shows) {
			t.Errorf("%s does not show %q any more: mend testdata/figures.yml", f.Page, f.Shows)
		}
		if f.Command == "" || f.Commit == "" || f.Why == "" {
			t.Errorf("%s, %q: say the command, the commit and why it is not made anew", f.Page, f.Shows)
		}
		if *figures != "" {
			t.Logf("not made anew, %s: %s (%s)\n  %s   at %s", f.Why, f.Shows, f.Page, f.Command, f.Commit)
		}
	}
}
