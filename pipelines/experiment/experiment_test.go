package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/digest"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/results"
)

// The test binary stands for the programs that an experiment starts, under their names.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "pipeline":
		os.Exit(fakePipeline(os.Args[1:]))
	case "evaluate", "probe":
		os.Exit(fakeMeasurement(filepath.Base(os.Args[0]), os.Args[1:]))
	}
	os.Exit(m.Run())
}

// fakePipeline keeps a run whose numbers tell the flags it was given, and fails for a stream of 3 bits.
func fakePipeline(args []string) int {
	given := strings.Join(args, " ")
	if slices.Contains(args, "--check") {
		if strings.Contains(given, "=x") {
			fmt.Fprintln(os.Stderr, "pipeline: x is no value")
			return 2
		}
		if strings.Contains(given, "stream_bits=5") && strings.Contains(given, "alibi=false") {
			fmt.Fprintln(os.Stderr, "pipeline: 5 bits and no ALiBi exclude each other")
			return 1
		}
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"type": "check", "stages": fakeDeclarations()})
		return 0
	}
	if strings.Contains(given, "stream_bits=3") {
		fmt.Fprintln(os.Stderr, "pipeline: 3 bits are too odd")
		return 1
	}
	run, bits, params := fakeTraining(args)
	j := journal.Open(args[slices.Index(args, "--data")+1])
	key := digest.Bytes([]byte(params))
	ref := func(of string) artifact.Ref {
		return artifact.Ref{Digest: digest.Bytes([]byte(of)), Kind: "file", Name: "x"}
	}
	for _, body := range []event.Body{
		event.RunStarted{Pipeline: "fake", Definition: ref(given)},
		event.CheckpointSaved{Step: 1, Model: ref("one")},
		event.CheckpointSaved{Step: 20, Tokens: 20000, Model: ref(run), Manifest: ref("dataset")},
		event.EvaluationWritten{Step: 20, BitsPerToken: bits},
		event.ProbeWritten{Step: 20, TopIPMR: 0.25, TopHead: len(args)},
	} {
		e, err := event.New(run, "train", key, event.Part{}, body)
		if err == nil {
			_, err = j.Write(e)
		}
		if err != nil {
			return 1
		}
	}
	for _, d := range fakeDeclarations() {
		if results.Declare(j, run, d) != nil {
			return 1
		}
	}
	if keepFakeRecord(j, run, key, params) != nil {
		return 1
	}
	fmt.Printf(`{"type":"event"}`+"\n"+`{"type":"summary","run":%q}`+"\n", run)
	return 0
}

// fakeTraining tells a training's run, loss and parameters from the flags. ALiBi costs 0.5 bits; a stream of 4 bits
// gains nothing but noise. Seed n adds n / 100 to all.
func fakeTraining(args []string) (run string, bits float64, params string) {
	given := strings.Join(args, " ")
	run, bits = "on", 4
	if strings.Contains(given, "alibi=false") {
		run, bits = "off", 3.5
	}
	stream := 1
	if strings.Contains(given, "stream_bits=4") {
		run, stream = run+"-4", 4
	}
	seed := 42
	if i := slices.Index(args, "--seed"); i >= 0 && !strings.Contains(given, "train.seed") {
		seed, _ = strconv.Atoi(args[i+1])
		run, bits = run+"-"+args[i+1], bits+float64(seed)/100
		if stream == 4 {
			bits += float64(seed%2) * 0.03
		}
	}
	return run, bits, fmt.Sprintf(`{"alibi":%v,"seed":%d,"stream_bits":%d}`, bits >= 4, seed, stream)
}

// keepFakeRecord leaves the record of the training's job, and its times.
func keepFakeRecord(j journal.Journal, run, key, params string) error {
	times := filepath.Join(j.RunDir(run), "train", "times", "train.jsonl")
	err := errors.Join(os.MkdirAll(filepath.Dir(times), 0o755),
		os.WriteFile(times, []byte(`{"step":20,"seconds":0.5}`+"\n"), 0o644))
	if err != nil {
		return err
	}
	store, err := artifact.Open(filepath.Dir(filepath.Dir(j.RunDir(run))))
	if err != nil {
		return err
	}
	r, err := record.Open(record.Root(store), "train", key, []byte(params), nil)
	if err != nil {
		return err
	}
	defer r.Close()
	if r.Complete() {
		return nil
	}
	return r.Commit()
}

// fakeDeclarations are what the stages of a run might say of their results.
func fakeDeclarations() []results.Declaration {
	answers := event.CheckpointSaved{}.Kind()
	return []results.Declaration{
		{Stage: "train", Answers: "dataset.sealed", Results: []results.Result{{
			Kind: answers, Row: &results.Column{Key: "step", Name: "checkpoint", Value: "{step}"},
		}}},
		{Stage: "evaluate", Answers: answers, Results: []results.Result{{
			Kind:    event.EvaluationWritten{}.Kind(),
			Columns: []results.Column{{Key: "bits", Name: "bits/token", Value: "{bits_per_token:.3}", Better: results.Lower}},
		}}},
		{Stage: "probe", Answers: answers, Results: []results.Result{{
			Kind: event.ProbeWritten{}.Kind(),
			Columns: []results.Column{
				{Key: "head", Name: "top head", Value: "H{top_head}"},
				{Key: "ipmr", Name: "IPMR", Value: "{top_ipmr:.1%}", Better: results.Higher, About: "how often a head copies"},
			},
		}}},
	}
}

// fakeMeasurement is a stage that gives every pair of a checkpoint and a dataset numbers of its own: the lengths of the
// files.
func fakeMeasurement(name string, args []string) int {
	all := fakeDeclarations()
	d := all[slices.IndexFunc(all, func(d results.Declaration) bool { return d.Stage == name })]
	if args[0] == "describe" {
		said := map[string]any{"name": d.Stage, "kind": d.Answers, "results": d.Results, "on_dataset": true}
		_ = json.NewEncoder(os.Stdout).Encode(said)
		return 0
	}
	size := func(flag string) float64 {
		info, err := os.Stat(args[slices.Index(args, flag)+1])
		if err != nil {
			return -1
		}
		return float64(info.Size() % 100)
	}
	body := map[string]any{"bits_per_token": size("--in"), "top_ipmr": size("--dataset") / 100, "top_head": 3}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"kind": d.Results[0].Kind, "body": body})
	return 0
}

// standIns is a folder of programs that are this test.
func standIns(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"pipeline", "evaluate", "probe"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run runs the program in this process.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	app := &cli.App{
		Writer: &out, Commands: []*cli.Command{gridCommand(), curvesCommand(), forgettingCommand(), recordCommand(),
			tableCommand(), plotCommand()},
		ExitErrHandler: func(*cli.Context, error) {}, DisableSliceFlagSeparator: true,
	}
	err := app.RunContext(t.Context(), append([]string{"experiment"}, args...))
	return out.String(), err
}

func TestAxes(t *testing.T) {
	for text, want := range map[string][]string{
		"train.x=[0],[0,2], none":       {"0", "0,2", "none"},
		"train.x=[[0],[0,2], []]":       {"0", "0,2", "none"},
		"train.x=[true,false]":          {"true", "false"},
		`tokenize.x="a, b",['c, d', e]`: {`"a, b"`, "'c, d', e"},
	} {
		a, err := parseAxis(text)
		if key, _, _ := strings.Cut(text, "="); err != nil || a.key != key || !slices.Equal(a.values, want) {
			t.Errorf("%s: got %+v, %v", text, a, err)
		}
	}
	for _, text := range []string{"train.alibi", "alibi=true", "train.alibi=", "train.alibi=true,,false", "train.x=[0,1",
		"train.x=0]", "train.x=1,2,1", "train.x=none,[]"} {
		if a, err := parseAxis(text); err == nil {
			t.Errorf("%s was taken as %+v", text, a)
		}
	}
	got := cells([]axis{{"a.x", []string{"1", "2"}}, {"a.y", []string{"u", "v"}}})
	if want := [][]string{{"1", "u"}, {"1", "v"}, {"2", "u"}, {"2", "v"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("cells are %v, want %v", got, want)
	}
}

// A value that is wrong, and two that exclude each other, are found before the first cell is run.
func TestGridIsCheckedFirst(t *testing.T) {
	for want, axes := range map[string][2]string{
		"stream_bits=1 alibi=x":     {"train.stream_bits=1,4", "train.alibi=true,x"},
		"stream_bits=5 alibi=false": {"train.stream_bits=1,5", "train.alibi=true,false"},
	} {
		data := t.TempDir()
		said, err := run(t, "grid", "--name", "g", "--programs", standIns(t), "--data", data,
			"--grid", axes[0], "--grid", axes[1], "--seeds", "1,2", "p.yml")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "nothing is run") ||
			strings.Contains(said, "cell") {
			t.Errorf("%s: it says %q and ends with %v", want, said, err)
		}
		if left, _ := os.ReadDir(data); len(left) > 0 {
			t.Errorf("%s: it made %v", want, left)
		}
	}
}

// Every cell is run with its parameters; one that fails leaves a gap and is told at the end.
func TestGrid(t *testing.T) {
	data := t.TempDir()
	said, err := run(t, "grid", "--name", "streams", "--programs", standIns(t), "--data", data,
		"--grid", "train.stream_bits=1,3", "--grid", "train.alibi=true,false", "--set", "train.steps=5", "p.yml")
	if err == nil || !strings.Contains(err.Error(), "stream_bits=3 alibi=true") {
		t.Errorf("error %v does not name the cells that failed", err)
	}
	csv, err := os.ReadFile(filepath.Join(data, "experiments", "streams", "streams.csv"))
	if err != nil {
		t.Fatal(err)
	}
	want := "stream_bits,alibi,run,step,bits/token,top head,IPMR\n" +
		"1,true,on,20,4,H11,0.25\n1,false,off,20,3.5,H11,0.25\n3,true,,,,,\n3,false,,,,,\n"
	if string(csv) != want {
		t.Errorf("CSV:\n%s\nwant\n%s", csv, want)
	}
	markdown, err := os.ReadFile(filepath.Join(data, "experiments", "streams", "streams.md"))
	if err != nil || !strings.Contains(string(markdown), "| 1 | false | off | 20 | **3.500** | H11 | 25.0 % |") ||
		!strings.Contains(said, "1            false  off") || !strings.Contains(said, "IPMR        how often a head copies") {
		t.Errorf("Markdown (%v):\n%s\nThe screen:\n%s", err, markdown, said)
	}
	f, err := os.Open(filepath.Join(data, "experiments", "streams", "streams.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil || picture.Bounds().Dx() < 400 {
		t.Errorf("picture %v, %v", picture.Bounds(), err)
	}
}

// A grid's files are never those of another grid: without a name each has its own, and a name is for one question.
func TestAnExperimentReplacesNoOther(t *testing.T) {
	data, programs := t.TempDir(), standIns(t)
	grid := func(args ...string) error {
		_, err := run(t, append(append([]string{"grid", "--programs", programs, "--data", data}, args...), "p.yml")...)
		return err
	}
	files := func() int {
		found, err := filepath.Glob(filepath.Join(data, "experiments", "*", "*.md"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	for i, args := range [][]string{
		{"--grid", "train.alibi=true"}, {"--grid", "train.alibi=true"}, {"--grid", "train.alibi=false"},
		{"--grid", "train.alibi=true", "--set", "train.steps=5"}, {"--name", "mine", "--grid", "train.alibi=true"},
		{"--name", "mine", "--grid", "train.alibi=false,true"}, {"--name", "mine", "--grid", "train.alibi=false", "--force"},
	} {
		if err := grid(args...); err != nil || files() != []int{1, 1, 2, 3, 4, 4, 4}[i] {
			t.Errorf("%v: %v, %d experiments", args, err, files())
		}
	}
	for _, args := range [][]string{
		{"--name", "mine", "--grid", "train.alibi=true"},
		{"--name", "mine", "--grid", "train.alibi=false", "--set", "train.steps=5"},
		{"--name", "mine", "--grid", "train.alibi=false", "--grid", "train.steps=5"},
	} {
		if err := grid(args...); err == nil || !strings.Contains(err.Error(), "--force") {
			t.Errorf("%v replaces another grid's files: %v", args, err)
		}
	}
}

func TestGridRefusesMistakes(t *testing.T) {
	for want, args := range map[string][]string{
		"one pipeline file": {"--grid", "a.b=1"},
		"stage.key=value":   {"--grid", "b=1", "p.yml"},
		"one --grid":        {"--grid", "a.b=1", "--grid", "a.b=2", "p.yml"},
		"--plot loss: the columns are bits/token, top head, IPMR": {"--grid", "a.b=1", "--plot", "loss", "--programs",
			standIns(t), "p.yml"},
	} {
		if _, err := run(t, append([]string{"grid", "--data", t.TempDir()}, args...)...); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %q in it", args, err, want)
		}
	}
}

// Both checkpoints are measured on both datasets, which are found by what the run's artifacts say.
func TestForgetting(t *testing.T) {
	data := t.TempDir()
	store, err := artifact.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	j := journal.Open(store.Dir())
	old := put(t, j, store, "base", "shard", "manifest", "manifest.json", []byte(strings.Repeat("x", 30)))
	announce(t, j, "base", event.DatasetSealed{Manifest: old})
	before := put(t, j, store, "base", "train", "checkpoint", "step-000009.safetensors", tiny(t, old.Digest, `{}`))
	announce(t, j, "base", event.CheckpointSaved{Step: 9, Model: before, Manifest: old})

	manifest := put(t, j, store, "ft", "shard", "manifest", "manifest.json", []byte(strings.Repeat("y", 40)))
	announce(t, j, "ft", event.DatasetSealed{Manifest: manifest})
	after := put(t, j, store, "ft", "train", "checkpoint", "step-000002.safetensors",
		tiny(t, manifest.Digest, `{"init_digest":"`+before.Digest+`"}`))
	announce(t, j, "ft", event.CheckpointSaved{Step: 2, Model: after, Manifest: manifest})

	for _, d := range fakeDeclarations() {
		if err := errors.Join(results.Declare(j, "ft", d), results.Declare(j, "base", d)); err != nil {
			t.Fatal(err)
		}
	}
	said, err := run(t, "forgetting", "--data", data, "--programs", standIns(t), "--run", "ft")
	if err != nil {
		t.Fatal(err)
	}
	markdown, err := os.ReadFile(filepath.Join(j.RunDir("ft"), "forgetting", "forgetting.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "| finetuning | IPMR | 40.0 % | 40.0 % | +0.0 % |"; !strings.Contains(string(markdown), want) ||
		!strings.Contains(string(markdown), "- `IPMR`: how often a head copies (higher is better)") {
		t.Errorf("it lacks %s or what IPMR is:\n%s", want, markdown)
	}
	if !strings.Contains(said, "finetuning         IPMR        40.0 %  40.0 %   +0.0 %\n") {
		t.Errorf("the screen lacks the last row:\n%s", said)
	}
	csv, err := os.ReadFile(filepath.Join(j.RunDir("ft"), "forgetting", "forgetting.csv"))
	if err != nil {
		t.Fatal(err)
	}
	x, y := before.Size%100, after.Size%100
	want := fmt.Sprintf("before finetuning,bits/token,%d,%d,%d\nbefore finetuning,IPMR,0.3,0.3,0\n"+
		"finetuning,bits/token,%d,%d,%d\nfinetuning,IPMR,0.4,0.4,0\n", x, y, y-x, x, y, y-x)
	if !strings.HasSuffix(string(csv), want) {
		t.Errorf("CSV:\n%s\nwant at its end\n%s", csv, want)
	}
	if _, err := run(t, "forgetting", "--data", data, "--programs", standIns(t), "--run", "base"); err == nil ||
		!strings.Contains(err.Error(), "random parameters") {
		t.Errorf("a run that began from nothing: error %v", err)
	}
	if _, err := run(t, "forgetting", "--data", data, "--programs", t.TempDir(), "--run", "ft"); err == nil ||
		!strings.Contains(err.Error(), "no stage that measures") {
		t.Errorf("without the programs: %v", err)
	}
	if _, err := run(t, "forgetting", "--data", data); err == nil || !strings.Contains(err.Error(), "give --run RUN") {
		t.Errorf("no run is named: error %v", err)
	}
	if _, err := run(t, "forgetting", "--data", data, "--run", "fy"); err == nil ||
		!strings.Contains(err.Error(), "no run fy") {
		t.Errorf("a run that is not there: error %v", err)
	}
}

// tiny is a checkpoint of the smallest model.
func tiny(t *testing.T, dataset, recipe string) []byte {
	t.Helper()
	c := model.Config{Vocab: 2, D: 2, Layers: 1, Heads: 1, FF: 2, Seq: 2, Eps: 1e-5, StreamBits: 1}.V76()
	m := checkpoint.Model{Config: c, Parameters: c.Parameters(), Provenance: checkpoint.Provenance{
		Dataset: dataset, Recipe: json.RawMessage(recipe), Mix: 1,
	}}
	for i := range m.Parameters {
		m.Parameters[i].Data = make([]float32, m.Parameters[i].Size())
	}
	var b bytes.Buffer
	if err := checkpoint.Write(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func put(t *testing.T, j journal.Journal, store *artifact.Store, run, by, kind, name string,
	content []byte) artifact.Ref {
	t.Helper()
	w, err := store.Create(kind, "", name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	ref, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Link(run, by, ref); err != nil {
		t.Fatal(err)
	}
	return ref
}

func announce(t *testing.T, j journal.Journal, run string, body event.Body) {
	t.Helper()
	for _, b := range []event.Body{event.RunStarted{Pipeline: run}, body} {
		by := map[string]string{"dataset.sealed": "shard", "checkpoint.saved": "train"}[b.Kind()]
		e, err := event.New(run, by, "", event.Part{}, b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Write(e); err != nil {
			t.Fatal(err)
		}
	}
}
