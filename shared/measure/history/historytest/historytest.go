// Package historytest makes runs up for tests: whole ones, with numbers that are known.
package historytest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/data/seal"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

// Options say what a run is like.
type Options struct {
	Source string  // name of its source; empty: books.parquet
	Shift  float64 // added to its losses
	Muon   bool
}

// Started is when every run began, Unix milliseconds: 2026-01-02 03:04:05 UTC.
const Started = 1767323045000

// Steps of every run: each is logged, and each third one saves a checkpoint.
const Steps = 12

// Loss is the training loss of a step, bits per token.
func (o Options) Loss(step int) float64 { return 4 + o.Shift + 8/float64(step) }

// Bits is the loss of a checkpoint on the validation split, bits per token. Its unigram entropy is 7.5.
func (o Options) Bits(step int) float64 { return o.Loss(step) + 0.125 }

// IPMR is that of a head at a checkpoint. A random key has 0.0625.
func IPMR(step, layer, head int) float64 { return float64(step*(1+2*layer+head)) / 100 }

// Tokens of a step, and seconds that a step takes.
const (
	Tokens  = 1000
	Seconds = 0.5
)

// maker makes a run.
type maker struct {
	Options
	t     *testing.T
	run   string
	store *artifact.Store
	journal.Journal
}

// Make makes a finished run of two layers and two heads in a data directory.
func Make(t *testing.T, data, run string, o Options) {
	t.Helper()
	if o.Source == "" {
		o.Source = "books.parquet"
	}
	store, err := artifact.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{o, t, run, store, journal.Open(data)}
	m.begin()
	manifest := m.dataset()
	m.train(manifest)
	m.found("launcher", event.RunFinished{Events: 20}, nil)
	for _, d := range Declarations() {
		m.must(results.Declare(m.Journal, run, d))
	}
	m.must(overview.KeepCommand(m.Journal, run, "pipeline run --preset nano pipelines/v76.yml"))
	m.file("logs/train.log", `{"level":"INFO","msg":"training","device":"cpu, 2 workers, made up"}`+"\n")
}

func (m *maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *maker) file(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.RunDir(m.run), name)
	m.must(os.MkdirAll(filepath.Dir(path), 0o755))
	m.must(os.WriteFile(path, []byte(text), 0o644))
}

func (m *maker) put(kind, name string, b []byte) artifact.Ref {
	m.t.Helper()
	ref, err := artifact.Put(m.store, kind, "application/octet-stream", name, b)
	m.must(err)
	return ref
}

func (m *maker) json(kind, name string, v any) artifact.Ref {
	m.t.Helper()
	b, err := json.Marshal(v)
	m.must(err)
	return m.put(kind, name, b)
}

// found announces an event, found with other parameters than the run's own where overrides has some.
func (m *maker) found(by string, body event.Body, overrides map[string]string) {
	m.t.Helper()
	e, err := event.New(m.run, by, "", event.Part{}, body)
	m.must(err)
	e.Time, e.Overrides = Started, overrides
	_, err = m.Write(e)
	m.must(err)
}

func (m *maker) begin() {
	d := definition.Definition{Name: "v76", Preset: "nano", Seed: 7,
		Sources: []definition.Source{{Name: m.Source, Digest: "0123456789abcdef", Size: 4321}},
		Stages:  map[string]json.RawMessage{"train": json.RawMessage(fmt.Sprintf(`{"steps":%d,"muon":%v}`, Steps, m.Muon))}}
	ref, err := d.Store(m.Journal, m.store, m.run)
	m.must(err)
	m.found("launcher", event.RunStarted{Pipeline: "v76", Definition: ref, Sources: 1,
		Stages: []string{"tokenize", "shard", "train", "evaluate", "probe"}}, nil)
	m.found("launcher", event.SourceAdded{Name: m.Source, Digest: "0123456789abcdef", Size: 4321}, nil)
	m.found("tokenize", event.TokensWritten{Source: m.Source, Documents: 17, Tokens: 2345, Bytes: 6789, Rows: 18}, nil)
	times, err := json.Marshal(stage.JobTimes{Stage: "tokenize", Of: m.Source, Bytes: 6789,
		Steps: []stage.StepTime{{Step: "decode", CPU: 1.25, Wall: 2.5}}})
	m.must(err)
	m.file("tokenize/"+stage.TimesFile("books"), string(times))
}

func (m *maker) dataset() artifact.Ref {
	path := measuretest.Sealed(m.t, seal.Options{SequenceLength: 16, ValidationShare: 0.3}, measuretest.Proverbs()...)
	b, err := os.ReadFile(path)
	m.must(err)
	manifest := m.put("manifest", "manifest.json", b)
	m.found("shard", event.DatasetSealed{Manifest: manifest, Documents: 17}, nil)
	return manifest
}

func (m *maker) train(manifest artifact.Ref) {
	var log, times string
	line := func(l any) string {
		b, err := json.Marshal(l)
		m.must(err)
		return string(b) + "\n"
	}
	for step := 1; step <= Steps; step++ {
		log += line(trainlog.Step{Event: trainlog.EventStep, Step: step, Tokens: int64(step * Tokens), TrainBPC: m.Loss(step),
			LearningRate: 0.002 * float64(Steps-step) / (Steps - 1), Gamma: 0.5, GradientNorm: 3})
		times += line(trainlog.StepTime{Step: step, Seconds: Seconds, TokensPerSecond: Tokens / Seconds})
		if step%3 != 0 {
			continue
		}
		validation := m.Loss(step) + 0.25
		log += line(trainlog.Checkpoint{Event: trainlog.EventCheckpoint, Step: step, Tokens: int64(step * Tokens),
			TrainBPC: m.Loss(step), ValBPC: &validation, Best: true})
		m.checkpoint(step, manifest)
	}
	m.file("train/"+trainlog.FileName, log)
	m.file("train/"+filepath.Join(stage.TimesFolder, trainlog.TimesFileName), times)
}

func (m *maker) checkpoint(step int, manifest artifact.Ref) {
	optimizer := "adamw"
	if m.Muon {
		optimizer = "muon"
	}
	recipe := fmt.Sprintf(`{"steps":%d,"warmup":0,"learning_rate":0.002,"schedule":"linear","final_share":0,`+
		`"optimizer":%q,"muon_learning_rate":0.06,"muon_schedule":"same","weight_decay":0.1,`+
		`"weight_decay_schedule":"rate"}`, Steps, optimizer)
	b, err := os.ReadFile(measuretest.Checkpoint(m.t, measuretest.Config(16), checkpoint.Provenance{Step: int64(step),
		Tokenizer: "bytes", Recipe: json.RawMessage(recipe), Gamma: 0.5, Mix: 1}))
	m.must(err)
	model := m.put("checkpoint", fmt.Sprintf("step-%06d.safetensors", step), b)
	m.found("train", event.CheckpointSaved{Step: step, Model: model, Manifest: manifest, Tokens: int64(step * Tokens),
		TrainBits: m.Loss(step), ValidationBits: m.Loss(step) + 0.25, Best: true, Last: step == Steps}, nil)
	// A report's digest is the event's identity.
	report := m.json("evaluation", "evaluation.json", map[string]any{"step": step, "run": m.run})
	standard := 0.015625
	m.found("evaluate", event.EvaluationWritten{Step: step, Model: model, Report: report, BitsPerToken: m.Bits(step),
		BitsPerTokenError: &standard, UnigramEntropy: 7.5}, nil)
	if step == Steps {
		other := m.json("evaluation", "evaluation.json", map[string]any{"step": step, "run": m.run, "sequences": 2})
		m.found("evaluate", event.EvaluationWritten{Step: step, Model: model, Report: other, BitsPerToken: m.Bits(step) + 1,
			UnigramEntropy: 7.5}, map[string]string{"evaluate.sequences": "2"})
	}
	var heads []map[string]any
	for i := range 4 {
		heads = append(heads, map[string]any{"layer": i / 2, "head": i % 2, "ipmr": IPMR(step, i/2, i%2), "hdr": 0.5,
			"distances": []int{1, 2, 5 * (1 + i)}})
	}
	health := m.json("probe", "health.json", map[string]any{"step": step, "random_ipmr": 0.0625, "heads": heads})
	induction := m.json("probe", "induction.json", map[string]any{"step": step, "run": 1, "random_ipmr": 0.03125,
		"heads": []map[string]any{{"layer": 0, "head": 0, "ipmr": 0.25, "prefix_matching": 0.75}}})
	m.found("probe", event.ProbeWritten{Step: step, Model: model, Health: health, Induction: induction, TopLayer: 1,
		TopHead: 1, TopIPMR: IPMR(step, 1, 1), RandomIPMR: 0.0625}, nil)
}

// Declarations are what the stages of the runs say of their results.
func Declarations() []results.Declaration {
	saved := event.CheckpointSaved{}.Kind()
	return []results.Declaration{
		{Stage: "train", Answers: event.DatasetSealed{}.Kind(), Results: []results.Result{{
			Kind: saved, Row: &results.Column{Key: "step", Name: "checkpoint", Value: "{step}", About: "optimizer steps taken"},
		}}},
		{Stage: "evaluate", Answers: saved, Results: []results.Result{{
			Kind: event.EvaluationWritten{}.Kind(),
			Columns: []results.Column{{Key: "bits_per_token", Name: "bits/token", Value: "{bits_per_token:.3}",
				Error: "{bits_per_token_error:.3}", Better: results.Lower, About: "loss on validation text",
				Baseline: &results.Baseline{Key: "unigram_entropy", Name: "unigram", Value: "{unigram_entropy:.3}",
					About: "loss of a model that knows frequencies alone"}}},
		}}},
		{Stage: "probe", Answers: saved, Results: []results.Result{{
			Kind: event.ProbeWritten{}.Kind(),
			Columns: []results.Column{
				{Key: "best_head", Name: "best head", Value: "L{top_layer}.H{top_head}"},
				{Key: "ipmr", Name: "IPMR", Value: "{top_ipmr:.1%}", Better: results.Higher, About: "how often a head copies",
					Baseline: &results.Baseline{Key: "random_ipmr", Name: "random", Value: "{random_ipmr:.1%}",
						About: "IPMR of a random key"}},
			},
		}}},
	}
}
