package examples

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/datasettest"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/pythontest"
	"bitnet1/shared/run/resultsfile"
)

// stepsIn prints, as JSON, the tokens and the targets that dataset.py reads in two steps and of all validation.
const stepsIn = `
import json, sys
from dataset import Split
split, validation = (Split(sys.argv[1], name) for name in ("train", "validation"))
read = [split.step(step, int(sys.argv[2]), int(sys.argv[3])) for step in (0, 1)]
read.append(validation.sequences(range(len(validation))))
print(json.dumps([[column.flatten().tolist() for column in pair] for pair in read]))
`

// dataset.py reads what the project reads, in the same order.
func TestDatasetInPython(t *testing.T) {
	python := pythontest.Interpreter(t, "numpy")
	present(t, "dataset.py")
	for name, c := range map[string]struct {
		vocabulary dataset.TokenizerInfo
		documents  int
		options    seal.Options
		perStep    int // sequences
		seed       uint64
	}{
		"several shards": {datasettest.Small, 90, seal.Options{SequenceLength: 16, SequencesPerShard: 7}, 20, 42},
		"counted targets": {datasettest.Small, 60,
			seal.Options{SequenceLength: 24, Counted: []int{5, 20}, ValidationShare: 0.3}, 9, math.MaxUint64},
		"several epochs in a step": {datasettest.Small, 9, seal.Options{SequenceLength: 32}, 31, 7},
		"several record batches":   {datasettest.Large, 120_000, seal.Options{SequenceLength: 64}, 64, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m, dir := datasettest.Seal(t, c.options,
				datasettest.Batch(t, c.vocabulary, datasettest.Synthetic(c.documents, c.vocabulary)))
			data := datasettest.Open(t, m, dir)
			out, err := exec.Command(python, "-c", stepsIn, manifestFile(t, m, dir), strconv.Itoa(c.perStep),
				strconv.FormatUint(c.seed, 10)).Output()
			if err != nil {
				t.Fatal(withOutput(err))
			}
			var got [][2][]int32
			if err := json.Unmarshal(out, &got); err != nil || len(got) != 3 {
				t.Fatalf("%v in %.200s", err, out)
			}
			n := data.Train.Len()
			for step := range 2 {
				var indices []int
				for i := step * c.perStep; i < (step+1)*c.perStep; i++ {
					indices = append(indices, dataset.Order(n, c.seed, i/n).At(i%n))
				}
				compareSequences(t, data.Train, indices, got[step])
			}
			var all []int
			for i := range data.Validation.Len() {
				all = append(all, i)
			}
			compareSequences(t, data.Validation, all, got[2])
		})
	}
}

// compareSequences compares tokens and targets with those of the sequences of a split.
func compareSequences(t *testing.T, s *dataset.Split, indices []int, got [2][]int32) {
	t.Helper()
	var tokens, targets []int32
	for _, i := range indices {
		var err error
		if tokens, targets, err = s.AppendTargets(i, tokens, targets); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got[0], tokens) || !slices.Equal(got[1], targets) {
		t.Errorf("tokens %.80s and targets %.80s, want %.80s and %.80s", fmt.Sprint(got[0]), fmt.Sprint(got[1]),
			fmt.Sprint(tokens), fmt.Sprint(targets))
	}
}

// denseLine is a line that dense.py prints.
type denseLine struct {
	Event        string
	Step         int
	LearningRate float64 `json:"lr"`
	GradientNorm float64 `json:"grad_norm"`
	Training     float64 `json:"train_bpc"`
	Validation   float64 `json:"val_bpc"`
}

// runsOf runs dense.py with every line of its input as the command line, in one process: importing torch takes seconds.
const runsOf = `
import runpy, sys
for line in sys.stdin:
    sys.argv = ["dense.py", *line.split()]
    try:
        runpy.run_path("dense.py", run_name="__main__")
    except SystemExit as e:
        print(e, file=sys.stderr)
`

// runDense runs dense.py with a small model, once for each of the flags.
func runDense(t *testing.T, manifest string, flags ...string) (stdout, stderr string) {
	t.Helper()
	var input strings.Builder
	for _, f := range flags {
		fmt.Fprintln(&input, manifest, "--d 64 --layers 1 --heads 2 --ff 96 --batch-tokens 512 --log-every 1", f)
	}
	var out, failed bytes.Buffer
	command := exec.Command(pythontest.Interpreter(t, "torch", "numpy"), "-c", runsOf)
	command.Env = append(os.Environ(), "OMP_NUM_THREADS=1") // waiting threads would take the time of other tests
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(input.String()), &out, &failed
	if err := command.Run(); err != nil {
		t.Fatalf("%v: %s", err, failed.String())
	}
	return out.String(), failed.String()
}

// trained is what came of one run of dense.py.
type trained struct {
	steps, validations []denseLine
	resultsfile.Run    // as the results file has it
}

// dense trains once with each of the flags.
func dense(t *testing.T, manifest string, flags ...string) []trained {
	t.Helper()
	all := make([]trained, len(flags))
	commands := slices.Clone(flags)
	folder := t.TempDir()
	for i := range commands {
		commands[i] += fmt.Sprintf(" --validate-every 20 --out %s/%d.jsonl", folder, i)
	}
	stdout, stderr := runDense(t, manifest, commands...)
	i := 0
	for text := range strings.Lines(stdout) {
		var line denseLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		switch line.Event {
		case "step":
			all[i].steps = append(all[i].steps, line)
		case "validation":
			all[i].validations = append(all[i].validations, line)
		default:
			runs, err := resultsfile.Read(fmt.Sprintf("%s/%d.jsonl", folder, i))
			if err != nil || len(runs) != 1 {
				t.Fatalf("%d runs (%v)", len(runs), err)
			}
			all[i].Run = runs[0]
			i++
		}
	}
	if i != len(all) || stderr != "" {
		t.Fatalf("%d of %d runs ended: %s", i, len(all), stderr)
	}
	return all
}

// books is the manifest of a dataset of made-up texts.
func books(t *testing.T) (manifest string) {
	t.Helper()
	pythontest.Interpreter(t, "torch", "numpy")
	present(t, "dense.py")
	tok, info := datasettest.Tokenizer(t, "bytes")
	texts := datasettest.Batch(t, info, datasettest.Texts(tok, "books", datasettest.Books()[:5]...))
	m, dir := datasettest.Seal(t, seal.Options{SequenceLength: 32, ValidationShare: 0.05}, texts)
	return manifestFile(t, m, dir)
}

// Both optimizers learn, with the learning rates of the stage train.
func TestDenseLearns(t *testing.T) {
	const total, warmup, peak, final, cooldown = 40, 4, 0.01, 0.2, 0.5
	const flags = "--steps 40 --warmup 0.1 --final-share 0.2 --lr 0.01 "
	decays := []string{model.Trapezoid, model.Cosine}
	for i, run := range dense(t, books(t), flags+"--schedule trapezoid --cooldown 0.5 --optimizer muon", flags) {
		if len(run.steps) != total || len(run.validations) != 2 || run.Steps != total || run.Tokens != total*512 {
			t.Fatalf("%d steps and %d validations, %+v", len(run.steps), len(run.validations), run.Run)
		}
		if first := run.steps[0].Training; math.Abs(first-math.Log2(257)) > 0.05 {
			t.Errorf("%g bits before training, want those of 257 equally probable tokens", first)
		}
		last, before, bits := run.steps[total-1].Training, run.validations[0].Validation, run.Results["bits_per_token"]
		if !(bits < 2 && bits < before && math.Abs(bits-last) < 0.3) || run.Results["train_bits"] != last {
			t.Errorf("run %d: validation %g and %g, training %g bits", i, before, bits, last)
		}
		schedule := model.Schedule{Decay: decays[i], Total: total, Warmup: warmup, Cooldown: cooldown * total, Final: final}
		for k, l := range run.steps {
			want, within := schedule.Rate(k, peak), 1e-9
			if schedule.Decay == model.Cosine && k >= warmup { // dense.py is up to a step ahead
				within += want - schedule.Rate(k+1, peak)
			}
			if math.Abs(l.LearningRate-want) > within {
				t.Errorf("%s: step %d has the rate %g, want %g", schedule.Decay, k, l.LearningRate, want)
			}
		}
	}
}

// What is computed at once changes nothing, a step can have shorter sequences, and time can end the training.
func TestDenseSizes(t *testing.T) {
	const flags = "--steps 20 --lr 0.003 --validation-sequences 37"
	runs := dense(t, books(t), flags,
		flags+" --micro-tokens 200", // four sequences at once, and one validates alone
		flags+" --seq 16", "--seconds 0.2 --validation-sequences 37")
	whole, divided, cut, timed := runs[0], runs[1], runs[2], runs[3]
	for what, got := range divided.Results {
		if math.Abs(got-whole.Results[what]) > 1e-3 {
			t.Errorf("%s is %g at once and %g in parts", what, whole.Results[what], got)
		}
	}
	if a, b := whole.steps[0].GradientNorm, divided.steps[0].GradientNorm; math.Abs(a/b-1) > 1e-4 {
		t.Errorf("the gradient's norm is %g at once and %g in parts", a, b)
	}
	bits := func(run trained) float64 { return run.Results["bits_per_token"] }
	if d := bits(cut) - bits(whole); d == 0 || math.Abs(d) > 0.3 {
		t.Errorf("sequences of 16 have a loss of %g bits, those of 32 %g", bits(cut), bits(whole))
	}
	if timed.Steps < 1 || timed.Seconds < 0.2 || timed.Tokens != int64(timed.Steps)*512 {
		t.Errorf("0.2 seconds of training: %+v", timed.Run)
	}
}

// A longer training goes on from where a shorter one began its cool-down, as if the shorter one had not been.
func TestDenseSeveralLengths(t *testing.T) {
	folder := t.TempDir()
	stdout, stderr := runDense(t, books(t), "--seconds 0.3 0.9 --schedule trapezoid --cooldown 0.5 --lr 0.01 "+
		"--optimizer muon --validation-sequences 8 --out "+folder+"/runs.jsonl")
	runs, err := resultsfile.Read(folder + "/runs.jsonl")
	if err != nil || len(runs) != 2 || stderr != "" {
		t.Fatalf("%d runs (%v): %s", len(runs), err, stderr)
	}
	var steps []denseLine
	for text := range strings.Lines(stdout) {
		var line denseLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if line.Event == "step" {
			steps = append(steps, line)
		}
	}
	end := slices.IndexFunc(steps, func(l denseLine) bool { return l.Step == runs[0].Steps })
	longer := steps[end+1:]
	if first := longer[0]; first.Step < 2 || first.Step > runs[0].Steps {
		t.Fatalf("the longer training goes on with step %d, the shorter one ended at %d", first.Step, runs[0].Steps)
	}
	again := steps[longer[0].Step-1]
	if again.Step != longer[0].Step || again.Training != longer[0].Training {
		t.Errorf("the step where the cool-down began: %+v, and again %+v: want the same loss", again, longer[0])
	}
	if longer[0].LearningRate < again.LearningRate || again.LearningRate < steps[end].LearningRate {
		t.Errorf("rates %g, in the cool-down %g to %g", longer[0].LearningRate, again.LearningRate, steps[end].LearningRate)
	}
	if last := longer[len(longer)-1]; last.Step != runs[1].Steps || runs[1].Seconds < 0.9 || runs[0].Seconds < 0.3 {
		t.Errorf("the trainings took %g and %g seconds", runs[0].Seconds, runs[1].Seconds)
	}
}

// Weights of fewer bits lose more, and take the space of integers and scales.
func TestDenseRounded(t *testing.T) {
	results := dense(t, books(t), "--steps 20 --lr 0.01 --d 128")[0].Results
	const d, ff = 128, 96
	const gains, weights = 3 * d, 257*d + 4*d*d + 2*d*ff
	const rows, groups = 257 + 4*d + ff + d, (257*d+4*d*d+ff*d)/64 + d // the rows of down, of 96, are not divided
	for bits, bytes := range map[int]float64{
		16: 2 * (gains + weights), 8: 2*gains + weights + 2*rows, 4: 2*gains + weights/2 + 2*groups,
	} {
		if got := results[fmt.Sprintf("megabytes_%d_bit", bits)]; math.Abs(got-bytes/1e6) > 1e-12 {
			t.Errorf("%d bits a weight take %g MB, want %g", bits, got, bytes/1e6)
		}
	}
	lost := func(bits int) float64 {
		return math.Abs(results[fmt.Sprintf("bits_per_token_%d_bit", bits)] - results["bits_per_token"])
	}
	if !(lost(16) < 0.002 && lost(8) < 0.005 && lost(4) > lost(8) && lost(4) < 0.2) {
		t.Errorf("16, 8 and 4 bits a weight change the loss by %g, %g and %g", lost(16), lost(8), lost(4))
	}
}

// A results file has a run once, and each seed is a run of its own.
func TestDenseResultsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.jsonl")
	again := "--steps 1 --validation-sequences 1 --out " + path
	if _, stderr := runDense(t, books(t), again, again+" --seed 7", again, again+" --seed 9"); stderr != "" {
		t.Fatal(stderr)
	}
	runs, err := resultsfile.Read(path)
	var seeds []uint64
	for _, r := range runs {
		seeds = append(seeds, r.Seed)
	}
	if slices.Sort(seeds); err != nil || !slices.Equal(seeds, []uint64{7, 9, 42}) {
		t.Fatalf("seeds %d (%v)", seeds, err)
	}
	if runs[0].Same() != runs[1].Same() {
		t.Errorf("runs differ in more than the seed: %s and %s", runs[0].Same(), runs[1].Same())
	}
}

// What cannot be trained is refused with what to do.
func TestDenseRefuses(t *testing.T) {
	stdout, stderr := runDense(t, books(t), "--batch-tokens 100", "--seq 5", "--heads 5", "--micro-tokens 31",
		"--steps 3 --lr 1e30")
	for want, times := range map[string]int{
		"--batch-tokens must be a multiple of 32, --seq a divisor": 3, "it must be a multiple of 2 · 5": 1, "lower --lr": 1,
	} {
		if n := strings.Count(stderr, want); n != times {
			t.Errorf("%d times %q, want %d:\n%s\n%s", n, want, times, stdout, stderr)
		}
	}
}

// present makes a test result depend on a program in Python.
func present(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(name); err != nil {
		t.Fatal(err)
	}
}

// manifestFile writes a manifest beside its shards and returns its path.
func manifestFile(t *testing.T, m *dataset.Manifest, dir string) string {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "manifest.json")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
