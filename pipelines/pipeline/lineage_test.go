package main

import (
	"bytes"
	"encoding/json"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/pipelines/pipeline/lineage"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/record"
)

// traced is the lineage of an artifact, as the program prints it.
func (w *world) traced(args ...string) (g lineage.Graph) {
	w.t.Helper()
	out := w.must("pipeline", append([]string{"lineage", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &g); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return g
}

func stagesOf(g lineage.Graph) (names []string) {
	for _, j := range g.Jobs {
		names = append(names, j.Stage)
	}
	slices.Sort(names)
	return names
}

// jobOf is the first job of a stage.
func jobOf(t *testing.T, g lineage.Graph, stage string) lineage.Job {
	t.Helper()
	for _, j := range g.Jobs {
		if j.Stage == stage {
			return j
		}
	}
	t.Fatalf("no job of %s in %v", stage, stagesOf(g))
	return lineage.Job{}
}

// An artifact leads back to the rows of its sources, through the jobs that made it and their parameters. Done again,
// the jobs make the same bytes; where what is recorded of them was changed, the first artifact that differs is named.
func TestLineage(t *testing.T) {
	w := newWorld(t)
	w.must("pipeline", tiny("--run", "r")...)
	w.must("evaluate", "run", "--run", "r", "--checkpoint", "40", "--sequences", "3")
	t.Run("graph", w.checkGraph)
	t.Run("finetuned", w.checkFinetuned)
	t.Run("tree", w.checkTree)
	t.Run("names", w.checkNames)
	t.Run("repeat", w.checkRepeat)
	t.Run("files", w.checkFiles)
	t.Run("damage", w.checkDamage) // the last: it changes records
}

func (w *world) checkGraph(t *testing.T) {
	g := w.traced("r/evaluate/sequences=3/step-000040_evaluation.json")
	sources := len(g.Sources)
	if sources < 2 {
		t.Fatalf("%d sources, want those of the sample corpus", sources)
	}
	want := append(slices.Repeat([]string{"tokenize"}, sources), "train")
	if got := stagesOf(g); !slices.Equal(got, append([]string{"evaluate", "shard"}, want...)) {
		t.Errorf("jobs of %v", got)
	}
	evaluate, train := jobOf(t, g, "evaluate"), jobOf(t, g, "train")
	if evaluate.Given["sequences"] != "3" || evaluate.Answers != "checkpoint.saved" || evaluate.Run != "r" {
		t.Errorf("the evaluation is of %+v", evaluate)
	}
	if train.Given["steps"] != "80" || train.Given["learning_rate"] == "" || train.Given["beta1"] != "" {
		t.Errorf("parameters of training: %v", train.Given)
	}
	if shard := jobOf(t, g, "shard"); len(shard.Artifacts) != sources || len(shard.Events) != sources {
		t.Errorf("the dataset is made of %d token batches for %d events, want %d", len(shard.Artifacts), len(shard.Events),
			sources)
	}
	if a := g.Artifacts[0]; a.Digest != g.Artifact || a.Name != "step-000040_evaluation.json" || !a.There {
		t.Errorf("the artifact asked for is %+v", a)
	}
	for _, s := range g.Sources {
		if s.Read == nil || s.Rows == nil || s.Read.Rows < 1 || s.Rows.Count != s.Read.Documents {
			t.Errorf("source %s: %+v, rows %+v", s.Name, s.Read, s.Rows)
		}
		if _, err := os.Stat(s.Path); err != nil {
			t.Errorf("source %s: %v", s.Name, err)
		}
	}
	// A shard has some of the rows, and all shards have all of them.
	rows := map[string]int64{}
	shards, err := filepath.Glob(filepath.Join(w.data, "runs", "r", "shard", "*.arrow"))
	if err != nil || len(shards) < 2 {
		t.Fatalf("shards %v, %v", shards, err)
	}
	for _, path := range shards {
		for _, r := range w.traced(path).Artifacts[0].Rows {
			rows[r.Source] += r.Count
		}
	}
	for _, s := range g.Sources {
		if rows[s.Name] < s.Rows.Count || rows[s.Name] > s.Rows.Count+1 { // a document may lie in two shards
			t.Errorf("%d rows of %s are in shards, want %d", rows[s.Name], s.Name, s.Rows.Count)
		}
	}
}

// A training that began from a checkpoint of another run leads to that, although no event does.
func (w *world) checkFinetuned(t *testing.T) {
	init := filepath.Join(w.data, "runs", "r", "train", "step-000020.safetensors")
	w.must("pipeline", tiny("--run", "tuned", "--set", "train.init="+init, "--set", "train.steps=20", "--set",
		"train.learning_rate=1e-3")...)
	g := w.traced("tuned/step-000020.safetensors")
	trained := 0
	for _, j := range g.Jobs {
		if j.Stage == "train" {
			trained++
		}
	}
	if train := jobOf(t, g, "train"); trained != 2 || len(train.Named) != 1 || train.Run != "tuned" {
		t.Errorf("%d trainings, and the last names %v", trained, train.Named)
	}
	out := w.must("pipeline", "lineage", "--repeat", "tuned/step-000020.safetensors")
	if strings.Count(out, "the same") != len(g.Jobs) || strings.Contains(out, "another key") {
		t.Errorf("repeated:\n%s", out)
	}
}

// A rerun that read a file of its user's is repeated with that file, and the report has the command.
func (w *world) checkFiles(t *testing.T) {
	set := filepath.Join(t.TempDir(), "questions.jsonl")
	if err := os.WriteFile(set, []byte(`{"query": "2 + 2 =", "choices": ["4", "5"], "gold": 0}`), 0o644); err != nil {
		t.Fatal(err)
	}
	tasks := "multiple_choice=" + set
	w.must("evaluate", "run", "--run", "r", "--checkpoint", "40", "--tasks", tasks)
	files, err := filepath.Glob(filepath.Join(w.data, "runs", "r", "evaluate", "*", "step-000040_tasks.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("scores in %v, %v", files, err)
	}
	g := w.traced(files[0])
	if given := jobOf(t, g, "evaluate").Given; given["tasks"] != tasks || given["text"] != "" {
		t.Errorf("parameters of the evaluation: %v", given)
	}
	out := w.must("pipeline", "lineage", "--repeat", files[0])
	if strings.Count(out, "the same") != len(g.Jobs) || strings.Contains(out, "another key") {
		t.Errorf("repeated:\n%s", out)
	}
	w.must("report", "--run", "r")
	page, err := os.ReadFile(filepath.Join(w.data, "runs", "r", "report", "report.html"))
	if err != nil || !strings.Contains(html.UnescapeString(string(page)), " --tasks="+tasks) {
		t.Errorf("the report lacks --tasks=%s: %v", tasks, err)
	}
}

// The tree fits the terminal, and draws once what several jobs read.
func (w *world) checkTree(t *testing.T) {
	h, err := lineage.Open(w.data)
	if err != nil {
		t.Fatal(err)
	}
	sum, run, err := h.Resolve("r/step-000080.bit2")
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Of(sum, run)
	if err != nil {
		t.Fatal(err)
	}
	for _, width := range []int{60, 80, 0} {
		var b bytes.Buffer
		if err := g.WriteTree(&b, width); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); width > 0 && n > width {
				t.Errorf("width %d: a line of %d columns: %s", width, n, line)
			}
		}
		words := strings.FieldsFunc(b.String(), func(r rune) bool { return strings.ContainsRune(" │\n", r) })
		text := strings.Join(words, " ")
		for _, want := range []string{"step-000080.bit2", "made by pack", "made by train", "made by shard", "learning_rate=",
			"rows read", "documents: row"} {
			if strings.Count(text, want) < 1 {
				t.Errorf("width %d: no %q in\n%s", width, want, b.String())
			}
		}
		if strings.Count(text, "made by shard") != 1 {
			t.Errorf("width %d: the dataset is drawn more than once:\n%s", width, b.String())
		}
	}
	dot := w.must("pipeline", "lineage", "--dot", "r/step-000080.bit2")
	if !strings.HasPrefix(dot, "digraph") || strings.Count(dot, "shape=folder") != len(g.Sources) ||
		strings.Count(dot, "shape=ellipse") != len(g.Jobs) {
		t.Errorf("the graph for Graphviz:\n%s", dot)
	}
}

// An artifact is named by a path, by run and name, or by the beginning of its digest; what is no artifact is refused.
func (w *world) checkNames(t *testing.T) {
	path := filepath.Join(w.data, "runs", "r", "train", "step-000080.safetensors")
	sum := w.traced(path).Artifact
	for _, name := range []string{"r/step-000080.safetensors", "r/train/step-000080.safetensors", sum, sum[:12],
		filepath.Join(w.data, "objects", sum[:2], sum)} {
		if got := w.traced(name).Artifact; got != sum {
			t.Errorf("%s is %s, want %s", name, got, sum)
		}
	}
	// Of two evaluations the one with the run's own parameters is meant.
	own, other := w.traced("r/step-000040_evaluation.json"), w.traced("r/evaluate/sequences=3/step-000040_evaluation.json")
	if own.Artifact != w.traced("r/evaluate/step-000040_evaluation.json").Artifact || own.Artifact == other.Artifact {
		t.Errorf("the evaluation is %s, and that of three sequences %s", own.Artifact, other.Artifact)
	}
	out := filepath.Join(t.TempDir(), "tokens")
	book := filepath.Join(t.TempDir(), "book.txt")
	if err := os.WriteFile(book, []byte("It was the first day of the year.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must("tokenize", "run", "--in", book, "--out", out, "--tokenizer", "bytes")
	batches, err := filepath.Glob(filepath.Join(out, "*.arrow"))
	if err != nil || len(batches) != 1 {
		t.Fatalf("%v, %v", batches, err)
	}
	foreign := filepath.Join(t.TempDir(), "foreign")
	if err := os.WriteFile(foreign, []byte("of no job"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"r/evaluate/none.json"}, "run r has no file evaluate/none.json"},
		{[]string{"r/step-0000?0.safetensors"}, "run r has several files"},
		{[]string{"absent/x"}, "is no file, no RUN/NAME and no beginning of a digest"},
		{[]string{foreign}, "was made by no job that is known here"},
		{nil, "give one artifact"},
		{[]string{"--folder", out, "--repeat", batches[0]}, "the command of its one-shot run, with another --out, repeats"},
	} {
		o := w.run("pipeline", append([]string{"lineage"}, c.args...)...)
		if o.status == 0 || !strings.Contains(o.stderr, c.want) {
			t.Errorf("%v: status %d, %s; want %q", c.args, o.status, o.stderr, c.want)
		}
	}
	if got := w.must("pipeline", "lineage", "--folder", out, batches[0]); !strings.Contains(got, "tokenizer=bytes") {
		t.Errorf("of a one-shot run:\n%s", got)
	}
}

func (w *world) checkRepeat(t *testing.T) {
	out := filepath.Join(t.TempDir(), "again")
	g := w.traced("r/step-000080_induction.json")
	said := w.must("pipeline", "lineage", "--repeat", "--out", out, "r/step-000080_induction.json")
	if strings.Count(said, "the same\n") != len(g.Jobs) {
		t.Errorf("%d jobs, repeated:\n%s", len(g.Jobs), said)
	}
	for _, a := range g.Artifacts {
		if _, err := os.Stat(filepath.Join(out, "objects", a.Digest[:2], a.Digest)); err != nil {
			t.Errorf("%s was not made again: %v", a.Name, err)
		}
	}
	o := w.run("pipeline", "lineage", "--repeat", "--out", out, "r/step-000080_induction.json")
	if o.status == 0 || !strings.Contains(o.stderr, "is not empty") {
		t.Errorf("into a folder that is not fresh: status %d, %s", o.status, o.stderr)
	}
}

// A record that says something else than what was done is found out by repeating; a record that cannot be read leaves a
// hole in the lineage, which is said.
func (w *world) checkDamage(t *testing.T) {
	const name = "r/step-000080_induction.json"
	train := jobOf(t, w.traced(name), "train")
	path := filepath.Join(record.Root(artifact.ReadOnly(w.data)), train.Key[:2], train.Key, "record.msgpack")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r record.Record
	if err := event.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	r.Params = strings.Replace(r.Params, `"seed":`, `"seed":1`, 1)
	changed, err := event.Marshal(r)
	if err == nil {
		err = artifact.WriteFile(path, changed)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "again")
	o := w.run("pipeline", "lineage", "--repeat", "--out", out, name)
	if o.status == 0 || !strings.Contains(o.stderr, "train, repeated, made something else: step-000020.safetensors had") {
		t.Errorf("a changed record: status %d: %s%s", o.status, o.stdout, o.stderr)
	}
	if err := artifact.WriteFile(path, b[:len(b)/2]); err != nil {
		t.Fatal(err)
	}
	tree := strings.Join(strings.Fields(w.must("pipeline", "lineage", name)), " ")
	for _, want := range []string{"made by train", "its record is gone or damaged", "steps=80", "made by shard"} {
		if !strings.Contains(tree, want) {
			t.Errorf("a damaged record: no %q in %s", want, tree)
		}
	}
	o = w.run("pipeline", "lineage", "--repeat", name)
	if o.status == 0 || !strings.Contains(o.stderr, "its record is gone or damaged") {
		t.Errorf("repeating a job without a record: status %d: %s", o.status, o.stderr)
	}
}
