// Package runtest makes data directories with made-up runs, for tests and measurements.
package runtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/results"
)

// Run is what there is to be of a run.
type Run struct {
	Name        string
	Points      int // lines of the training log
	Of          int // lines that it will have; 0: as many as it has
	Checkpoints int // saved so far, each evaluated, probed and sampled
	Finished    bool
	Failed      string // why a job has failed
	Seed        uint64
	Rate        float64 // learning rate, a parameter that differs
	Started     int64   // Unix milliseconds
	Linked      string  // run whose log and times are this run's, too
}

// Every tenth step is logged, of so many tokens.
const (
	LogEvery      = 10
	TokensPerStep = 4096
)

// Write makes a run under the data directory dir.
func Write(t testing.TB, dir string, r Run) {
	t.Helper()
	w := writer{t: t, dir: dir, run: r, at: r.Started}
	if r.Of == 0 {
		w.run.Of = r.Points
	}
	w.start()
	w.log()
	for i := range r.Checkpoints {
		w.checkpoint(i)
	}
	if r.Failed != "" {
		w.announce("evaluate", event.Part{}, event.JobFinished{Listener: "evaluate", Input: digest.Bytes([]byte("x")),
			Outcome: event.Failed, Cause: r.Failed, At: w.at})
	}
	if r.Finished {
		w.announce("launcher", event.Part{}, event.RunFinished{Events: 10})
	}
}

type writer struct {
	t   testing.TB
	dir string
	run Run
	at  int64
}

func (w *writer) start() {
	w.t.Helper()
	d := definition.Definition{Name: "v77", Preset: "nano", Seed: w.run.Seed,
		Sources: []definition.Source{{Name: "sample.parquet", Digest: digest.Bytes(nil), Size: 1}},
		Stages: map[string]json.RawMessage{
			"train": json.RawMessage(fmt.Sprintf(`{"steps":%d,"learning_rate":%g,"d":128,"layers":4,"heads":4}`,
				w.run.Of*LogEvery, w.run.Rate)),
			"probe": json.RawMessage(`{"sequences":128}`),
		}}
	b, err := d.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	w.announce("launcher", event.Part{}, event.RunStarted{Pipeline: "v77",
		Definition: w.artifact("definition", "application/json", "definition.json", b), Sources: 1,
		Stages: []string{"tokenize", "train", "evaluate", "probe", "generate"}})
	w.announce("launcher", event.Part{}, event.SourceAdded{Name: "sample.parquet", Digest: digest.Bytes(nil)})
	for _, declared := range declarations {
		b, err := json.Marshal(declared)
		if err != nil {
			w.t.Fatal(err)
		}
		w.file(filepath.Join(w.folder(), "results", declared.Stage+".json"), b)
	}
}

// Loss is the made-up loss of a run at a line of its log.
func (r Run) Loss(line int) float64 {
	noise := rand.New(rand.NewPCG(r.Seed, uint64(line))).NormFloat64()
	return 2.4 + 40*r.Rate + 4*math.Exp(-float64(line)/(40+float64(r.Of)/8)) + 0.05*noise
}

func (w *writer) log() {
	if w.run.Linked != "" {
		for _, path := range []func(dir, run string) string{LogFile, TimesFile} {
			w.link(path(w.dir, w.run.Linked), path(w.dir, w.run.Name))
		}
		return
	}
	var log, times []byte
	every := max(w.run.Points/max(w.run.Checkpoints, 1), 1)
	for i := range w.run.Points {
		log = append(log, Line(w.run, i)...)
		times = append(times, TimesLine(w.run, i)...)
		if (i+1)%every == 0 && (i+1)/every <= w.run.Checkpoints {
			bits := w.run.Loss(i) + 0.05
			b, _ := json.Marshal(trainlog.Checkpoint{Event: trainlog.EventCheckpoint, Step: (i + 1) * LogEvery,
				Tokens: int64(i+1) * LogEvery * TokensPerStep, TrainBPC: w.run.Loss(i), ValBPC: &bits})
			log = append(append(log, b...), '\n')
		}
	}
	if w.run.Points > 0 {
		w.file(LogFile(w.dir, w.run.Name), log)
		w.file(TimesFile(w.dir, w.run.Name), times)
	}
}

// Line is a line of a run's training log.
func Line(r Run, i int) []byte {
	warm := math.Min(1, float64(i+1)/50)
	b, _ := json.Marshal(trainlog.Step{Event: trainlog.EventStep, Step: (i + 1) * LogEvery,
		Tokens: int64(i+1) * LogEvery * TokensPerStep, TrainBPC: r.Loss(i), LearningRate: r.Rate * warm, Gamma: 0.87,
		GradientNorm: 1 + 4*math.Exp(-float64(i)/30)})
	return append(b, '\n')
}

// TimesLine is a line of a run's times.
func TimesLine(r Run, i int) []byte {
	rate := 25000 + 2000*math.Sin(float64(i)/20+float64(r.Seed))
	b, _ := json.Marshal(trainlog.StepTime{Step: (i + 1) * LogEvery, Seconds: TokensPerStep / rate, TokensPerSecond: rate})
	return append(b, '\n')
}

// LogFile is where a run's training log is.
func LogFile(dir, run string) string {
	return filepath.Join(dir, "runs", run, "train", trainlog.FileName)
}

// TimesFile is where the times beside it are.
func TimesFile(dir, run string) string {
	return filepath.Join(dir, "runs", run, "train", "times", trainlog.TimesFileName)
}

// checkpoint announces a checkpoint, and what stages have made of it.
func (w *writer) checkpoint(i int) {
	line := max(w.run.Points/max(w.run.Checkpoints, 1), 1)*(i+1) - 1
	step, loss := (line+1)*LogEvery, w.run.Loss(line)
	model := artifact.Ref{Digest: digest.Bytes([]byte(fmt.Sprint(w.run.Name, step))), Kind: "checkpoint", Name: "m"}
	w.announce("train", event.Part{}, event.CheckpointSaved{Step: step, Model: model, Tokens: int64(step) * TokensPerStep,
		TrainBits: loss, ValidationBits: loss + 0.05, Best: true})
	bits := 0.02
	w.announce("evaluate", event.Part{}, event.EvaluationWritten{Step: step, Model: model, BitsPerToken: loss + 0.1,
		BitsPerByte: (loss + 0.1) / 4, UnigramEntropy: 9.1, BitsPerTokenError: &bits})
	const layers, heads = 4, 4
	noise := rand.New(rand.NewPCG(w.run.Seed, uint64(i)))
	health := map[string]any{"step": step, "random_ipmr": 0.08, "random_m4": 0.2, "random_hdr": 0.6}
	var all []map[string]any
	top := 0.0
	for h := range layers * heads {
		v := 0.05 + 0.3*noise.Float64()*float64(i+1)/float64(w.run.Checkpoints)
		top = max(top, v)
		all = append(all, map[string]any{"layer": h / heads, "head": h % heads, "ipmr": v, "m4": 2 * v, "hdr": 0.3})
	}
	health["heads"] = all
	b, _ := json.Marshal(health)
	w.announce("probe", event.Part{}, event.ProbeWritten{Step: step, Model: model, TopIPMR: top, RandomIPMR: 0.08,
		Health: w.artifact("probe", "application/json", fmt.Sprintf("step-%06d_pointer_health.json", step), b)})
	text, _ := json.Marshal(map[string]any{"step": step, "texts": []map[string]any{
		{"prompt": "It was the best of times, ", "text": fmt.Sprintf("it was the %dth step of times.", step)},
		{"prompt": "", "text": "<b>One bit</b> & another."}}})
	w.announce("generate", event.Part{}, event.TextWritten{Step: step, Texts: 2,
		Text: w.artifact("text", "application/json", fmt.Sprintf("step-%06d_text.json", step), text)})
}

func (w *writer) folder() string { return filepath.Join(w.dir, "runs", w.run.Name) }

func (w *writer) announce(stage string, part event.Part, body event.Body) {
	w.t.Helper()
	e, err := event.New(w.run.Name, stage, "", part, body)
	if err != nil {
		w.t.Fatal(err)
	}
	w.at += 1000
	e.Time = w.at
	b, err := e.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	w.file(filepath.Join(w.folder(), "events", e.Kind, e.ID+".msgpack"), b)
}

func (w *writer) artifact(kind, media, name string, b []byte) artifact.Ref {
	ref := artifact.Ref{Digest: digest.Bytes(b), Kind: kind, MediaType: media, Name: name, Size: int64(len(b))}
	w.file(artifact.ObjectPath(w.dir, ref.Digest), b)
	return ref
}

// file writes a file without syncing it, which thousands of them would take minutes for.
func (w *writer) file(path string, b []byte) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) link(from, to string) {
	w.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.Link(from, to)); err != nil {
		w.t.Fatal(err)
	}
}

var declarations = []results.Declaration{
	{Stage: "train", Answers: event.SourceAdded{}.Kind(), Results: []results.Result{{
		Kind: event.CheckpointSaved{}.Kind(),
		Row:  &results.Column{Key: "step", Name: "checkpoint", Value: "{step}", About: "optimizer steps taken"},
		Columns: []results.Column{
			{Key: "train_bits", Name: "training", Value: "{train_bits:.3}", Unit: "bits/token", Better: results.Lower},
			{Key: "validation_bits", Name: "validation", Value: "{validation_bits:.3}", Unit: "bits/token",
				Better: results.Lower, Mark: "best"},
		}}}},
	{Stage: "evaluate", Answers: event.CheckpointSaved{}.Kind(), Results: []results.Result{{
		Kind: event.EvaluationWritten{}.Kind(), Columns: []results.Column{
			{Key: "bits_per_token", Name: "bits/token", Value: "{bits_per_token:.3}", Error: "{bits_per_token_error:.3}",
				Better: results.Lower, About: "loss on the whole validation text, bits per token",
				Baseline: &results.Baseline{Key: "unigram", Name: "unigram", Value: "{unigram_entropy:.3}"}},
		}}}},
	{Stage: "probe", Answers: event.CheckpointSaved{}.Kind(), Results: []results.Result{{
		Kind: event.ProbeWritten{}.Kind(), Columns: []results.Column{
			{Key: "ipmr", Name: "IPMR", Value: "{top_ipmr:.1%}", Better: results.Higher,
				About:    "induction pointer match rate of the best head",
				Baseline: &results.Baseline{Key: "random_ipmr", Name: "random", Value: "{random_ipmr:.1%}"}},
		}}}},
}
