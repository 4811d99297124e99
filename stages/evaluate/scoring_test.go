package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/data/seal"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
	"bitnet1/stages/evaluate/tasks"
)

func byteCheckpoint(t *testing.T, seq int) string {
	t.Helper()
	return measuretest.Checkpoint(t, measuretest.Config(seq),
		checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
}

// scored runs the stage and returns its report of tasks.
func scored(t *testing.T, flags ...string) (r tasksReport) {
	t.Helper()
	out := t.TempDir()
	measuretest.Run(t, append(flags, "--out", out)...)
	measuretest.ReadJSON(t, filepath.Join(out, "step-000007_tasks.json"), &r)
	return r
}

// Scores are those of the likelihoods that the model gives each request by itself, however many are computed at once
// and whatever their lengths, and a packed model has those of its checkpoint.
func TestScores(t *testing.T) {
	path, dir := byteCheckpoint(t, 64), t.TempDir()
	pairs, words := filepath.Join(dir, "pairs"), filepath.Join(dir, "words.jsonl")
	if err := os.Mkdir(pairs, 0o755); err != nil {
		t.Fatal(err)
	}
	var rows []any
	for i := range 30 {
		context := strings.Repeat("a sea, ", i/2)
		rows = append(rows, map[string]any{"query": context, "gold": i % 3,
			"choices": []string{"b", "cc or d", strings.Repeat("ef ", 1+i/3)}})
		write(t, filepath.Join(pairs, fmt.Sprintf("set%d.jsonl", i%2)), rows...)
	}
	write(t, words, map[string]any{"context": "An apple", "continuation": "pie"},
		map[string]any{"context": "", "continuation": "sun"})
	want := map[string]tasks.Result{}
	for name, file := range map[string]string{"multiple_choice": pairs, "lambada": words} {
		want[name] = alone(t, path, name, file)
	}
	flags := []string{"--tasks", "multiple_choice=" + pairs, "--tasks", "lambada=" + words, "--in"}
	for _, more := range [][]string{{path}, {path, "--micro-tokens", "1"},
		{path, "--micro-tokens", "129", "--threads", "1"}, {measuretest.Packed(t, path)}} {
		r := scored(t, append(slices.Clone(flags), more...)...)
		if r.Version != 1 || r.Step != 7 || r.Tokenizer != "bytes" || r.Context != 64 || len(r.Tasks) != 2 {
			t.Fatalf("%v: %+v", more, r)
		}
		for _, got := range r.Tasks {
			if fmt.Sprint(deref(got.Result)) != fmt.Sprint(deref(want[got.Task])) {
				t.Errorf("%v: %v, want %v", more, deref(got.Result), deref(want[got.Task]))
			}
		}
		if a := r.Tasks[0]; a.Requests != 3*a.Examples || a.Truncated == 0 || a.Truncated == a.Requests || len(a.Sets) != 2 {
			t.Errorf("%v: %d requests of %d examples in %d sets, %d truncated", more, a.Requests, a.Examples, len(a.Sets),
				a.Truncated)
		}
	}
}

// Sequences are cut into halves as long as attention of GPUs can read the parts.
func TestCuts(t *testing.T) {
	for seq, want := range map[int][]int{2048: {16, 32, 64, 128, 256, 512, 1024, 2048}, 96: {24, 48, 96}, 16: {16},
		24: {24}, 100: {100}, 200: {100, 200}} {
		if got := cuts(seq); !slices.Equal(got, want) {
			t.Errorf("%d is cut into %v, want %v", seq, got, want)
		}
	}
}

// deref is what Sprint shows of a result, with the values of pointers.
func deref(r tasks.Result) (shown []string) {
	for _, set := range append(r.Sets, tasks.Set{Set: r.Task, Scores: r.Scores}) {
		for _, s := range set.Scores {
			shown = append(shown, fmt.Sprint(set.Set, set.Examples, s.Metric, s.Value, number(s.Error), s.Chance))
		}
	}
	return shown
}

// number is what Sprint shows of a number that may be absent.
func number(x *float64) any {
	if x == nil {
		return nil
	}
	return *x
}

// alone scores a task a request at a time.
func alone(t *testing.T, path, name, file string) tasks.Result {
	t.Helper()
	task, err := tasks.Read(name, file)
	if err != nil {
		t.Fatal(err)
	}
	m, settings := measuretest.Load(t, path, 1)
	var likelihoods [][]tasks.Likelihood
	for _, e := range task.Examples {
		var answers []tasks.Likelihood
		for _, r := range e.Requests {
			ids := []int32{256}
			if r.Context != "" {
				ids = nil
			}
			for _, b := range []byte(r.Context + r.Continuation) {
				ids = append(ids, int32(b))
			}
			n := len(r.Continuation) + len(r.Context) - len(strings.TrimRight(r.Context, " "))
			if len(ids) > 65 {
				ids = ids[len(ids)-65:]
			}
			said, err := likelihood(m, settings, ids, n)
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, tasks.Likelihood{Nats: said[0].(float64), Greedy: said[1].(bool), Tokens: n})
		}
		likelihoods = append(likelihoods, answers)
	}
	return task.Score(likelihoods, 257)
}

// The loss on a dataset is the same with and without tasks beside it.
func TestTasksBesideADataset(t *testing.T) {
	path, dir := byteCheckpoint(t, 16), t.TempDir()
	manifest := measuretest.Sealed(t, seal.Options{SequenceLength: 16, ValidationShare: 0.2, Seed: 3},
		measuretest.Proverbs()...)
	write(t, filepath.Join(dir, "a.jsonl"), map[string]any{"sentence_good": "Ants eat.", "sentence_bad": "Ants eats."})
	var reports [][]byte
	for _, more := range [][]string{nil, {"--tasks", "blimp=" + filepath.Join(dir, "a.jsonl")}} {
		out := t.TempDir()
		said := measuretest.Run(t, append([]string{"--in", path, "--dataset", manifest, "--out", out}, more...)...)
		if strings.Contains(said, "BLiMP acc") != (more != nil) {
			t.Errorf("%v: it said\n%s", more, said)
		}
		b, err := os.ReadFile(filepath.Join(out, "step-000007_evaluation.json"))
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, b)
	}
	if !bytes.Equal(reports[0], reports[1]) {
		t.Errorf("with a task the evaluation is\n%s\nwithout\n%s", reports[1], reports[0])
	}
}

// On several datasets there is an evaluation of each, and the scores on tasks are the same beside all.
func TestSeveralDatasetsAndATask(t *testing.T) {
	dir, path := t.TempDir(), byteCheckpoint(t, 16)
	pairs := filepath.Join(dir, "a.jsonl")
	write(t, pairs, map[string]any{"sentence_good": "Ants eat.", "sentence_bad": "Ants eats."})
	flags := []string{"--in", path, "--out", filepath.Join(dir, "out"), "--tasks", "blimp=" + pairs}
	var datasets []string
	for i := range 2 {
		manifest := measuretest.Sealed(t, seal.Options{SequenceLength: 16, ValidationShare: 0.2, Seed: uint64(3 + i)},
			measuretest.Proverbs()...)
		flags = append(flags, "--dataset", manifest)
		datasets = append(datasets, manifest)
	}
	said := measuretest.Run(t, flags...)
	if n := strings.Count(said, "blimp requests"); n > 1 {
		t.Errorf("the task was scored %d times:\n%s", n, said)
	}
	var tasks []tasksReport
	for _, manifest := range datasets {
		folder := filepath.Join(dir, "out", filepath.Base(filepath.Dir(manifest)))
		var r report
		measuretest.ReadJSON(t, filepath.Join(folder, "step-000007_evaluation.json"), &r)
		if alone := evaluated(t, "--in", path, "--dataset", manifest); fmt.Sprint(r.BitsPerToken, r.Dataset) !=
			fmt.Sprint(alone.BitsPerToken, alone.Dataset) {
			t.Errorf("%s: %+v, by itself %+v", manifest, r, alone)
		}
		var scores tasksReport
		measuretest.ReadJSON(t, filepath.Join(folder, "step-000007_tasks.json"), &scores)
		tasks = append(tasks, scores)
	}
	if fmt.Sprint(deref(tasks[0].Tasks[0].Result)) != fmt.Sprint(deref(tasks[1].Tasks[0].Result)) {
		t.Errorf("%+v and %+v", tasks[0], tasks[1])
	}
}

// An example with an answer that is too long for the model is left out, and counted.
func TestAnswersThatAreTooLong(t *testing.T) {
	long, short := filepath.Join(t.TempDir(), "long.jsonl"), filepath.Join(t.TempDir(), "short.jsonl")
	rows := []any{map[string]any{"sentence_good": "Ants eat.", "sentence_bad": "Ants eats."},
		map[string]any{"sentence_good": "Ants.", "sentence_bad": "An ant and an ant."},
		map[string]any{"sentence_good": "An ant is.", "sentence_bad": "An ant are."}}
	write(t, long, rows...)
	write(t, short, rows[0], rows[2])
	path := byteCheckpoint(t, 16)
	a := scored(t, "--in", path, "--tasks", "blimp="+long).Tasks[0]
	b := scored(t, "--in", path, "--tasks", "blimp="+short).Tasks[0]
	if a.LeftOut != 1 || b.LeftOut != 0 || fmt.Sprint(deref(a.Result)) != fmt.Sprint(deref(b.Result)) {
		t.Errorf("with the long answer %+v, %v; without %+v, %v", a, deref(a.Result), b, deref(b.Result))
	}
}

// What cannot be scored is refused, with the file and the line.
func TestRefusesTasks(t *testing.T) {
	path, dir := byteCheckpoint(t, 16), t.TempDir()
	good, long := filepath.Join(dir, "good.jsonl"), filepath.Join(dir, "long.jsonl")
	pair := map[string]any{"sentence_good": "Ants eat.", "sentence_bad": "Ants eats."}
	write(t, good, pair)
	write(t, long, map[string]any{"sentence_good": "Ants eat grass.", "sentence_bad": "Ants eat all grass."})
	unnamed := measuretest.Checkpoint(t, measuretest.Config(16), checkpoint.Provenance{Step: 7, Gamma: 0.3, Mix: 1})
	for want, flags := range map[string]string{
		"add --dataset MANIFEST":                     "--in " + path,
		`"blimp" is not NAME=PATH`:                   "--in " + path + " --tasks blimp",
		`there is no task "blump"`:                   "--in " + path + " --tasks blump=" + good,
		"blimp is given twice":                       "--in " + path + " --tasks blimp=" + good + " --tasks blimp=" + long,
		"no such file":                               "--in " + path + " --tasks blimp=" + good + "x",
		"task_digests says blimp=00: it has other":   "--in " + path + " --tasks blimp=" + good + " --task-digests blimp=00",
		"task_digests is given without tasks":        "--in " + path + " --task-digests a=1,b=2",
		"good.jsonl: line 1: its keys are":           "--in " + path + " --tasks piqa=" + good,
		"16, in every example":                       "--in " + path + " --tasks blimp=" + long,
		"does not name its tokenizer: write it into": "--in " + unnamed + " --tasks blimp=" + good,
	} {
		cmd, said := measuretest.Program(t, strings.Fields(flags+" --out "+t.TempDir())...)
		if err := cmd.Run(); err == nil || !strings.Contains(strings.Join(strings.Fields(said.String()), " "), want) {
			t.Errorf("%v, want %q in\n%s", err, want, said)
		}
	}
}

func TestTasksReportIsDocumented(t *testing.T) { measuretest.Documented(t, "Tasks", tasksReport{}) }

// Every metric of a task has a column with a standard error and chance beside it. No heading is that of another stage's
// column: a run's table would write the stage's name before it, whether or not there are tasks.
func TestColumnsOfTasks(t *testing.T) {
	d := results.Declaration{Stage: "evaluate", Answers: "checkpoint.saved", Results: []results.Result{taskResults()}}
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
	e := 0.01
	body, err := event.Marshal(event.TasksScored{Step: 5, Scores: event.SortedMap[event.SortedMap[event.TaskScore]]{
		"lambada":   {"perplexity": {Value: 1234, Error: &e, Chance: 50000}, "acc": {Value: 0.25, Chance: 0.001}},
		"arc_easy":  {"acc": {Value: 0.3, Error: &e, Chance: 0.25}, "acc_norm": {Value: 0.4, Error: &e, Chance: 0.25}},
		"hellaswag": {"acc": {Value: 0.5, Error: &e, Chance: 0.25}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	fields, err := results.Body(body)
	if err != nil {
		t.Fatal(err)
	}
	want := `LAMBADA perplexity        1.23 k ± 0.01  (LAMBADA chance 50 k)
LAMBADA acc                      25.0 %  (LAMBADA chance 0.1 %)
HellaSwag acc              50.0 ± 1.0 %  (HellaSwag chance 25.0 %)
ARC-Easy acc               30.0 ± 1.0 %  (ARC-Easy chance 25.0 %)
ARC-Easy acc norm          40.0 ± 1.0 %  (ARC-Easy chance 25.0 %)`
	if got := strings.Join(taskResults().Lines(fields), "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	want = "checkpoint 5 on tasks, LAMBADA perplexity 1.23 k (chance 50 k), LAMBADA acc 25.0 % (chance 0.1 %), " +
		"HellaSwag acc 50.0 % (chance 25.0 %), ARC-Easy acc 30.0 % (chance 25.0 %), " +
		"ARC-Easy acc norm 40.0 % (chance 25.0 %)"
	if got := results.Template(taskResults().Headline).Text(fields); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for _, c := range taskResults().Columns {
		if c.Name == "chance" || c.Baseline.Name == "chance" {
			t.Errorf("the column %s has the heading of one of probe's", c.Key)
		}
	}
}
