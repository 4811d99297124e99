package main

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/measure"
	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/run/param"
)

// alone is a checkpoint for sequences of seq bytes.
func alone(t *testing.T) string {
	t.Helper()
	return measuretest.Checkpoint(t, measuretest.Config(seq),
		checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
}

// Parameters that came later are no part of a job's key where they change nothing, so that what is recorded stays.
func TestKeysOfEarlierJobsStay(t *testing.T) {
	got, err := param.Canonical(defaults())
	if want := `{"sequences":128,"repeats":32,"seed":42,"micro_tokens":4096}`; err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

// A checkpoint can be probed without a dataset, on random tokens, under the flags of the PyTorch project: they are
// other names of the parameters.
func TestRandomTokensAlone(t *testing.T) {
	path, out := alone(t), t.TempDir()
	const flags = " --device cpu --n-batches 2 --batch-size 3 --seq-len 16 --out "
	measuretest.Run(t, strings.Fields("--checkpoint "+path+flags+out)...)
	var health healthReport
	var copied inductionReport
	var heads headsReport
	measuretest.ReadJSON(t, filepath.Join(out, "step-000007_pointer_health.json"), &health)
	measuretest.ReadJSON(t, filepath.Join(out, "step-000007_induction.json"), &copied)
	measuretest.ReadJSON(t, filepath.Join(out, "step-000007_heads.json"), &heads)
	if health.Sequences != 6 || copied.Repeats != 6 || copied.Length != 8 || health.Dataset != "" ||
		heads.Format != headsFormat {
		t.Errorf("%d sequences, %d repeats of %d tokens, dataset %q, %s", health.Sequences, copied.Repeats, copied.Length,
			health.Dataset, heads.Format)
	}
	if health.Positions != 6*15 || heads.Pointers != health.Positions {
		t.Errorf("%d positions and %d pointers, want 15 of each sequence", health.Positions, heads.Pointers)
	}
	specialists := 0
	for _, h := range heads.Heads {
		if h.Specialist {
			specialists++
		}
		var sum int64
		for _, n := range h.Distances {
			sum += n
		}
		if sum != heads.Pointers || len(h.Distances) != len(heads.DistanceBins) {
			t.Errorf("%d pointers in %d bins, want %d in %d", sum, len(h.Distances), heads.Pointers, len(heads.DistanceBins))
		}
	}
	if specialists != health.Specialists {
		t.Errorf("%d heads are specialists, want %d", specialists, health.Specialists)
	}
	said := measuretest.Run(t, strings.Fields("--checkpoint "+path+
		" --sequences 6 --repeats 6 --sequence-length 16 --micro-tokens 48 --out "+out)...)
	if !strings.Contains(said, "made before") {
		t.Errorf("the same under the names of parameters is made again:\n%s", said)
	}
}

// The scores of Olsson et al. agree with their definitions, a short sequence at a time.
func TestPrefixMatchingOfShortSequences(t *testing.T) {
	path, out := alone(t), t.TempDir()
	measuretest.Run(t, strings.Fields("--checkpoint "+path+" --repeats 5 --sequences 1 --seed 3 --out "+out)...)
	var got headsReport
	measuretest.ReadJSON(t, filepath.Join(out, "step-000007_heads.json"), &got)

	m, settings := measuretest.Load(t, path, 1)
	text, err := tokenizer.New("bytes")
	if err != nil {
		t.Fatal(err)
	}
	on, err := newRandomTokens(&measure.Subject{Seq: seq, Tokenizer: text, Model: m, Settings: settings},
		Params{Seed: 3, Repeats: 5})
	if err != nil {
		t.Fatal(err)
	}
	c := newCopying(on)
	if c.length != 16 || c.copies != 2 || c.short != seq {
		t.Fatalf("%d copies of %d tokens in %d", c.copies, c.length, c.short)
	}
	if err := m.KeepReads(); err != nil {
		t.Fatal(err)
	}
	weights := weightsOf(m.Config(), settings)
	sums := make([]olsson, len(got.Heads))
	for i := range 5 {
		once := c.distinct(i)
		sorted := slices.Clone(once)
		slices.Sort(sorted)
		if len(slices.Compact(sorted)) != 16 {
			t.Fatalf("tokens %v are not different", once)
		}
		p := passOf(t, m, settings, append(slices.Clone(once), once...), make([]int32, seq))
		for layer := range m.Config().Layers {
			logits, err := m.DirectLogits(layer, 0, seq, once)
			if err != nil {
				t.Fatal(err)
			}
			for h := range m.Config().Heads {
				sum := &sums[layer*m.Config().Heads+h]
				for k := 16; k < 32; k++ {
					chosen := p.chosen(layer, h, k, m.Config().Survivors(seq))
					for rank, u := range chosen {
						if int(u) == k-15 {
							sum.PrefixMatching += weights[len(chosen)][rank] / (5 * 16)
						}
					}
					effect := logits[(k*m.Config().Heads+h)*16:][:16]
					sum.Copying += copyingShare(effect, 16, chosen, weights[len(chosen)]) / (5 * 16)
				}
			}
		}
	}
	for i, h := range got.Heads {
		near(t, "prefix matching", h.PrefixMatching, sums[i].PrefixMatching)
		near(t, "copying", h.Copying, sums[i].Copying)
	}
	near(t, "copying of random keys", got.RandomCopying, 1.0/16)
}

// A long sequence of the model is cut into short ones, which do not read one another.
func TestShortSequencesOfALongOne(t *testing.T) {
	c := measuretest.Config(260)
	path := measuretest.Checkpoint(t, c, checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
	m, settings := measuretest.Load(t, path, 1)
	text, err := tokenizer.New("bytes")
	if err != nil {
		t.Fatal(err)
	}
	on, err := newRandomTokens(&measure.Subject{Seq: 260, Tokenizer: text, Model: m, Settings: settings},
		Params{Repeats: 3})
	if err != nil {
		t.Fatal(err)
	}
	together, single := newCopying(on), newCopying(on)
	if together.length != 25 || together.copies != 4 || together.short != 130 {
		t.Fatalf("%d copies of %d tokens in %d", together.copies, together.length, together.short)
	}
	err = m.KeepReads()
	if err == nil {
		err = together.measure(0, 2)
	}
	for i := range 2 {
		if err == nil {
			err = single.measure(i, 1)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range together.heads {
		if together.of(i) != single.of(i) {
			t.Errorf("head %d: %+v together and %+v one at a time", i, together.of(i), single.of(i))
		}
	}
	// Of 75 queries 25 have one matching key, 25 have two and 25 three.
	prefix, copied := together.random()
	want := 0.0
	for k := 25; k < 100; k++ {
		want += float64(k/25) / float64(k+1) / 75
	}
	near(t, "prefix matching of random keys", prefix, want)
	near(t, "copying of random keys", copied, 0.04)
}

// A text is cut into sequences. Every token of it is predicted once, the first from an end of text.
func TestTextInSequences(t *testing.T) {
	const words = "abcdefghijklmnopqrst"
	bytes, err := tokenizer.New("bytes")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, []byte(words), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []Params{{Prompt: words}, {Text: file}} {
		all, err := cut(&measure.Subject{Seq: 8, Tokenizer: bytes}, p)
		if err != nil || all.count() != 3 {
			t.Fatalf("%d sequences, %v", all.count(), err)
		}
		tokens, targets, err := all.read(0, 3)
		if err != nil || len(tokens) != 24 || len(targets) != 24 || tokens[0] != int32(bytes.EndOfText()) {
			t.Fatalf("tokens %v, targets %v, %v", tokens, targets, err)
		}
		for i := range words {
			if targets[i] != int32(words[i]) || tokens[i+1] != int32(words[i]) {
				t.Errorf("token %d is %d and has target %d, want %d", i+1, tokens[i+1], targets[i], words[i])
			}
		}
		for i := len(words); i < 24; i++ {
			if targets[i] != -1 {
				t.Errorf("target %d, behind the text, is %d", i, targets[i])
			}
		}
	}
	if all, err := cut(&measure.Subject{Seq: 8, Tokenizer: bytes}, Params{Prompt: words, Sequences: 2}); all.count() != 2 {
		t.Errorf("of at most 2 sequences there are %d (%v)", all.count(), err)
	}
	for length, want := range map[int]int{1: 1, 7: 1, 8: 1, 9: 2, 16: 2} {
		if all, err := cut(&measure.Subject{Seq: 8, Tokenizer: bytes}, Params{Prompt: words[:length]}); all.count() != want {
			t.Errorf("%d bytes are %d sequences of 8, want %d (%v)", length, all.count(), want, err)
		}
	}
}

// The attention of a prompt is that of the model's pointers, with the texts of its tokens, and is drawn.
func TestAttentionOfAPrompt(t *testing.T) {
	const prompt = "to be or not\nto be"
	path, out := alone(t), t.TempDir()
	measuretest.Run(t, "--checkpoint", path, "--prompt", prompt, "--show-head", "L1.H0", "--repeats", "1", "--out", out)
	var got attentionReport
	measuretest.ReadJSON(t, filepath.Join(out, "step-000007_attention.json"), &got)
	if strings.Join(got.Texts, "") != "<|endoftext|>"+prompt || got.Sequence != 1 || got.Text == "" {
		t.Errorf("texts %q, sequence %d, text %s", got.Texts, got.Sequence, got.Text)
	}
	m, settings := measuretest.Load(t, path, 1)
	tokens := append(slices.Clone(got.Tokens), make([]int32, seq-len(got.Tokens))...)
	p := passOf(t, m, settings, tokens, make([]int32, seq))
	if len(got.Heads) != 4 || got.Heads[3].Layer != 1 || got.Heads[3].Head != 1 {
		t.Fatalf("%d heads", len(got.Heads))
	}
	for _, h := range got.Heads {
		if len(h.Keys) != len(prompt)+1 {
			t.Fatalf("%d queries, want one for each of %d tokens", len(h.Keys), len(prompt)+1)
		}
		for k, keys := range h.Keys {
			if want := p.chosen(h.Layer, h.Head, k, 4); !slices.Equal(keys, want) {
				t.Errorf("L%d.H%d, query %d: keys %v, want %v", h.Layer, h.Head, k, keys, want)
			}
		}
	}
	for n, w := range got.Weights {
		sum := 0.0
		for _, x := range w {
			sum += x
		}
		near(t, "sum of weights", sum, 1)
		if len(w) != n+1 {
			t.Errorf("weights %d are %v", n, w)
		}
	}
	picture, err := os.ReadFile(filepath.Join(out, "step-000007_attention.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(picture, new(struct{})); err != nil || strings.Count(string(picture), "L1.H0") != 2 ||
		strings.Count(string(picture), "L0.H1") != 1 || !strings.Contains(string(picture), "↵") {
		t.Errorf("the picture does not draw one head large and all small, or no tokens (%v)", err)
	}
}

// What cannot be probed is refused with a sentence that says what to do.
func TestRefusals(t *testing.T) {
	path := alone(t)
	nothing := filepath.Join(t.TempDir(), "nothing")
	if err := os.WriteFile(nothing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--prompt", ""}, "the prompt is empty"},
		{[]string{"--prompt", "a", "--text", nothing}, "text and prompt exclude each other"},
		{[]string{"--text", nothing}, "the text is empty"},
		{[]string{"--text", "no/such/file"}, "no such file"},
		{[]string{"--text-digest", "00"}, "text_digest is given without text"},
		{[]string{"--text", path, "--text-digest", "00"}, "it is another file"},
		{[]string{"--seq-len", "33"}, "sequences of 33 tokens: the checkpoint reads 1 to 32"},
		{[]string{"--seq-len", "3"}, "needs sequences of at least 4 tokens"},
		{[]string{"--seq-len", "0"}, "--seq-len 0: use 1 or more"},
		{[]string{"--n-batches", "0"}, "use 1 or more"},
		{[]string{"--batch-size", "2"}, "add it"},
		{[]string{"--prompt", "ab", "--show", "2"}, "show is 2, and the last sequence is number 1"},
		{[]string{"--prompt", "ab", "--show-head", "L2.H0"}, "the model has 2 layers of 2 heads"},
		{[]string{"--prompt", "ab", "--show-head", "3"}, "as in L0.H3"},
	} {
		cmd, said := measuretest.Program(t, append([]string{"--checkpoint", path, "--out", t.TempDir()}, c.flags...)...)
		if err := cmd.Run(); err == nil || !strings.Contains(said.String(), c.want) {
			t.Errorf("%v: %v, want %q:\n%s", c.flags, err, c.want, said)
		}
		if strings.Contains(said.String(), "sequences") && strings.Contains(said.String(), "working") {
			t.Errorf("%v: refused after the model has computed:\n%s", c.flags, said)
		}
	}
}

// Where no token comes twice, that is said: an IPMR of 0 would be taken for a measurement.
func TestATextWithoutRepetition(t *testing.T) {
	path := alone(t)
	for prompt, want := range map[string]bool{"a": true, "abcd": true, "abcab": false} {
		cmd, said := measuretest.Program(t, "--checkpoint", path, "--prompt", prompt, "--out", t.TempDir())
		if err := cmd.Run(); err != nil || strings.Contains(said.String(), "no token comes twice") != want {
			t.Errorf("%q: %v, want a note: %v\n%s", prompt, err, want, said)
		}
	}
}

// Bytes that are no text, and characters that nobody sees, are drawn as what they are.
func TestVisibleTokens(t *testing.T) {
	for token, want := range map[string]string{" the": "·the", "\n": "↵", "\xff": "ff", "é": "é", "\t": `\t`} {
		if got := visible(token); got != want {
			t.Errorf("%q is drawn as %q, want %q", token, got, want)
		}
	}
}
