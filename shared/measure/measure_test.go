package measure

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/run/stage"
)

// subject is a checkpoint of sequences of 16 beside the dataset of a manifest.
func subject(t *testing.T, manifest string) *Subject {
	t.Helper()
	path := measuretest.Checkpoint(t, measuretest.Config(16),
		checkpoint.Provenance{Step: 1234, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
	saved, err := openSaved(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &Subject{Saved: saved, Data: measuretest.Open(t, manifest), Manifest: new(dataset.Manifest)}
	measuretest.ReadJSON(t, manifest, s.Manifest)
	t.Cleanup(func() { saved.Close() })
	return s
}

func sealed(t *testing.T) string {
	t.Helper()
	return measuretest.Sealed(t, seal.Options{SequenceLength: 16, ValidationShare: 0.3, Seed: 3},
		measuretest.Proverbs()...)
}

// A model file is opened by its content: a checkpoint or a packed model, which a damaged one is not.
func TestModelFiles(t *testing.T) {
	path := measuretest.Checkpoint(t, measuretest.Config(16).V77(),
		checkpoint.Provenance{Step: 1234, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
	packed := measuretest.Packed(t, path)
	for _, path := range []string{path, packed} {
		saved, err := openSaved(path)
		if err != nil {
			t.Fatal(err)
		}
		if saved.Step != 1234 || saved.Config.CodebookBits != 4 || saved.Gamma != 0.3 {
			t.Errorf("%s is of %+v, %+v", path, saved.Config, saved.Provenance)
		}
		if err := saved.Close(); err != nil {
			t.Error(err)
		}
	}
	b, err := os.ReadFile(packed)
	if err == nil {
		b[len(b)/2] ^= 1
		err = os.WriteFile(packed, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openSaved(packed); err == nil || !strings.Contains(err.Error(), "digest differs") {
		t.Errorf("a damaged packed model: %v", err)
	}
}

// As many sequences are computed at once as micro_tokens holds, but one at least.
func TestBatch(t *testing.T) {
	for micro, want := range map[int]int{1: 1, 16: 1, 31: 1, 32: 2, 100: 6} {
		s := subject(t, sealed(t))
		if err := s.load(nil, stage.Host{Device: "cpu", Threads: 1}, micro); err != nil {
			t.Fatal(err)
		}
		if s.Batch != want || s.Seq != 16 || s.Model.Options().Batch != want || !s.Model.Options().Inference {
			t.Errorf("%d tokens: %d sequences of %d at once, want %d", micro, s.Batch, s.Seq, want)
		}
		if s.Settings.Gamma != 0.3 || s.Settings.Mix != 1 || s.Settings.Gumbel {
			t.Errorf("settings %+v are not the checkpoint's", s.Settings)
		}
		if s.Name("probe") != "step-001234_probe.json" {
			t.Errorf("a report is called %s", s.Name("probe"))
		}
	}
}

// What lies in a sequence, and its text, is the validation split's.
func TestSequences(t *testing.T) {
	s := subject(t, sealed(t))
	all := s.Data.Validation.Len()
	for limit, want := range map[int]int{0: all, 1: 1, 3: 3, all: all, all + 1: all} {
		if got := s.Count(limit); got != want {
			t.Errorf("at most %d of %d sequences are %d", limit, all, got)
		}
	}
	tokens, targets, err := s.Sequences(1, 3)
	if err != nil || len(tokens) != 32 || len(targets) != 32 {
		t.Fatalf("two sequences: %d tokens, %d targets, %v", len(tokens), len(targets), err)
	}
	for i := range 2 {
		want, wantTargets, err := s.Data.Validation.AppendTargets(1+i, nil, nil)
		if err != nil || !slices.Equal(tokens[16*i:][:16], want) || !slices.Equal(targets[16*i:][:16], wantTargets) {
			t.Errorf("sequence %d is not the split's: %v", 1+i, err)
		}
	}
	if _, _, err := s.Sequences(all, all+1); err == nil {
		t.Error("there is a sequence behind the last")
	}
	if s.Tokenizer, err = tokenizer.New("bytes"); err != nil {
		t.Fatal(err)
	}
	if got := s.Text([]int32{'p', 'o', 't'}); got != "pot" {
		t.Errorf("text %q", got)
	}
}

// A checkpoint is measured on a dataset that it can read, and on no other.
func TestFits(t *testing.T) {
	manifest := sealed(t)
	for want, change := range map[string]func(s *Subject){
		"": func(*Subject) {},
		"tokenize the dataset with --tokenizer gpt2": func(s *Subject) { s.Saved.Tokenizer = "gpt2" },
		"257 token ids, the checkpoint knows 256":    func(s *Subject) { s.Saved.Config.Vocab = 256 },
		"shard with --sequence-length 15":            func(s *Subject) { s.Saved.Config.Seq = 15 },
		"no validation split":                        func(s *Subject) { s.Data.Validation = new(dataset.Split) },
		"documents begin with token 9": func(s *Subject) {
			s.Saved.Documents = model.Documents{Separate: true,
				EndOfText: 9}
		},
	} {
		s := subject(t, manifest)
		change(s)
		if err := s.fits(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for what, change := range map[string]func(s *Subject){
		"a checkpoint that names no tokenizer": func(s *Subject) { s.Saved.Tokenizer = "" },
		"a checkpoint with more tokens":        func(s *Subject) { s.Saved.Config.Vocab = 258 },
		"a checkpoint of longer sequences":     func(s *Subject) { s.Saved.Config.Seq = 17 },
		"a checkpoint of separate documents": func(s *Subject) {
			s.Saved.Documents = model.Documents{Separate: true,
				EndOfText: 256}
		},
	} {
		s := subject(t, manifest)
		change(s)
		if err := s.fits(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A closed subject holds neither the shards' mappings nor the checkpoint.
func TestClose(t *testing.T) {
	manifest := sealed(t)
	mapped := func() bool {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Skip("finds mappings in /proc: needs Linux")
		}
		return strings.Contains(string(maps), filepath.Dir(manifest))
	}
	s := subject(t, manifest)
	if !mapped() {
		t.Fatal("no shard is mapped while the subject is open")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if mapped() {
		t.Error("a shard is mapped after the subject was closed")
	}
	if err := s.Saved.Close(); err == nil {
		t.Error("the checkpoint was open after the subject was closed")
	}
}

// A model alone has the tokenizer that it was trained with, and reads no more than it was built for.
func TestOwnTokenizer(t *testing.T) {
	manifest := sealed(t)
	for want, change := range map[string]func(s *Subject){
		"":                               func(s *Subject) { s.Seq = 16 },
		"sequences of 17 tokens":         func(s *Subject) { s.Seq = 17 },
		"sequences of -1 tokens":         func(s *Subject) { s.Seq = -1 },
		"does not name its tokenizer":    func(s *Subject) { s.Seq, s.Saved.Tokenizer = 16, "" },
		"tokenizer \"runes\" is unknown": func(s *Subject) { s.Seq, s.Saved.Tokenizer = 16, "runes" },
		"gpt2 has 50257 token ids":       func(s *Subject) { s.Seq, s.Saved.Tokenizer = 16, "gpt2" },
	} {
		s := subject(t, manifest)
		change(s)
		err := s.ownTokenizer()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if err == nil && s.Tokenizer.Name() != "bytes" {
			t.Errorf("the tokenizer is %s", s.Tokenizer.Name())
		}
	}
}
