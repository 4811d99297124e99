package main

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
)

// evaluated runs the stage and returns its report of the validation split.
func evaluated(t *testing.T, flags ...string) (r report) {
	t.Helper()
	out := t.TempDir()
	measuretest.Run(t, append(flags, "--out", out)...)
	measuretest.ReadJSON(t, filepath.Join(out, "step-000007_evaluation.json"), &r)
	return r
}

// each calls f for every target of the validation split: the tokens that the model may read before it, oldest first,
// the target, its loss in bits, and its document.
func each(t *testing.T, path, manifest string, f func(context []int32, target int32, bits float64, document string)) {
	t.Helper()
	m, settings := measuretest.Load(t, path, 1)
	data := measuretest.Open(t, manifest)
	for i := range data.Validation.Len() {
		tokens, targets, err := data.Validation.AppendTargets(i, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		losses, err := m.Losses(tokens, targets, settings)
		if err != nil {
			t.Fatal(err)
		}
		ranges, err := data.Validation.Ranges(i)
		if err != nil {
			t.Fatal(err)
		}
		start := 0
		for k, target := range targets {
			if m.Options().Documents.Separate && tokens[k] == 256 {
				start = k
			}
			if target < 0 {
				continue
			}
			document := ""
			for _, r := range ranges {
				if k+1 >= r.Start && k+1 < r.Start+r.Length {
					document = r.Document
				}
			}
			f(tokens[start:k+1], target, float64(losses[k])/math.Ln2, document)
		}
	}
}

// tally is what a test adds up of some targets.
type tally struct {
	tokens int64
	bits   float64
}

func (a tally) equals(p part) bool {
	if a.tokens == 0 {
		return p.Tokens == 0 && p.BitsPerToken == nil
	}
	return p.Tokens == a.tokens && p.BitsPerToken != nil && math.Abs(*p.BitsPerToken-a.bits/float64(a.tokens)) < 1e-9
}

// The breakdown's parts are those of their definitions, where documents are read by themselves and where not, and with
// targets that are not counted.
func TestBreakdown(t *testing.T) {
	for what, c := range map[string]struct {
		documents model.Documents
		counted   []int
	}{
		"packed": {}, "some targets": {counted: []int{3, 14}},
		"separate": {documents: model.Documents{Separate: true, EndOfText: 256}},
	} {
		t.Run(what, func(t *testing.T) {
			texts := append(measuretest.Proverbs(), "a b a b c", "abcabcabd", "", "x", "a\x00\x00b\x00")
			manifest := measuretest.Sealed(t,
				seal.Options{SequenceLength: 16, ValidationShare: 0.4, Seed: 3, Counted: c.counted}, texts...)
			path := measuretest.Checkpoint(t, measuretest.Config(16),
				checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1, Documents: c.documents})
			r := evaluated(t, "--in", path, "--dataset", manifest, "--breakdown", "--micro-tokens", "48")
			exact, buckets, induction := map[int]tally{}, map[int]tally{}, map[bool]tally{}
			documents := map[string]bool{}
			each(t, path, manifest, func(context []int32, target int32, bits float64, document string) {
				documents[document] = true
				repeats := false
				for j := range context[:len(context)-1] {
					repeats = repeats || context[j] == context[len(context)-1] && context[j+1] == target
				}
				b := int(math.Log2(float64(len(context))))
				exact[len(context)] = tally{exact[len(context)].tokens + 1, exact[len(context)].bits + bits}
				buckets[b] = tally{buckets[b].tokens + 1, buckets[b].bits + bits}
				induction[repeats] = tally{induction[repeats].tokens + 1, induction[repeats].bits + bits}
			})
			b := r.Breakdown
			if b == nil || r.Calibration != nil {
				t.Fatalf("%+v has no breakdown, or more", r)
			}
			if b.DocumentCount != len(documents) || b.DocumentCount < 3 {
				t.Errorf("%d documents, want %d", b.DocumentCount, len(documents))
			}
			if induction[true].tokens == 0 || !induction[true].equals(b.Induction.Predictable) ||
				!induction[false].equals(b.Induction.Other) {
				t.Errorf("induction %+v, want %+v", b.Induction, induction)
			}
			for i, p := range b.Positions {
				if p.From != 1<<i || p.To != min(2<<i-1, 16) || !buckets[i].equals(p.part) {
					t.Errorf("positions %d to %d: %+v, want %+v", p.From, p.To, p.part, buckets[i])
				}
			}
			if len(b.Positions) != 5 || len(b.BitsByPosition) != 16 {
				t.Errorf("%d buckets, %d positions", len(b.Positions), len(b.BitsByPosition))
			}
			for i, inBits := range b.BitsByPosition {
				if !exact[i+1].equals(part{Tokens: exact[i+1].tokens, BitsPerToken: inBits}) {
					t.Errorf("after %d tokens: %v, want %+v", i+1, inBits, exact[i+1])
				}
			}
			if i := b.BitsPerTokenInterval; i == nil || !(i[0] < r.BitsPerToken && r.BitsPerToken < i[1]) ||
				b.Resamples != 1000 {
				t.Errorf("the interval %v is not around %g", i, r.BitsPerToken)
			}
			if i := b.BitsPerByteInterval; i == nil || !(i[0] < r.BitsPerByte && r.BitsPerByte < i[1]) {
				t.Errorf("the interval %v is not around %g", i, r.BitsPerByte)
			}
		})
	}
}

// A report with a breakdown is the same every time, and all else in it is as without.
func TestBreakdownChangesNothingElse(t *testing.T) {
	manifest := measuretest.Sealed(t, seal.Options{SequenceLength: 16, ValidationShare: 0.4, Seed: 3},
		measuretest.Proverbs()...)
	path := byteCheckpoint(t, 16)
	read := func(more ...string) []byte {
		out := t.TempDir()
		measuretest.Run(t, append([]string{"--in", path, "--dataset", manifest, "--greedy", "--out", out}, more...)...)
		b, err := os.ReadFile(filepath.Join(out, "step-000007_evaluation.json"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	plain, with := read(), read("--breakdown", "--calibration", "--micro-tokens", "16")
	if !bytes.Equal(with, read("--breakdown", "--calibration", "--micro-tokens", "80", "--threads", "1")) {
		t.Error("a second report differs")
	}
	if before := strings.TrimSuffix(string(plain), "\n}\n"); !strings.HasPrefix(string(with), before) {
		t.Errorf("%s does not begin as\n%s", with, plain)
	}
}

// In 95 of 100 cases the truth lies in the interval, whatever the documents' lengths and however alike the tokens of a
// document are.
func TestIntervalsHoldTheTruth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const trials = 200
	hits := 0
	for range trials {
		d := documents{}
		for range 80 {
			tokens := float64(1 + r.IntN(300))
			loss := 2 + r.NormFloat64() // of the document: mean 2
			d.sums = append(d.sums, documentSums{loss * tokens * math.Ln2, tokens, 2 * tokens})
		}
		token, byte := d.intervals()
		if token[0] < 2 && 2 < token[1] {
			hits++
		}
		if byte[0] != token[0]/2 || byte[1] != token[1]/2 {
			t.Fatalf("two bytes a token: %v and %v", token, byte)
		}
	}
	if hits < 180 || hits > 198 { // 190 ± 3.1
		t.Errorf("the truth lies in %d of %d intervals", hits, trials)
	}
}

// Of documents that are all alike the interval is one value; one document has none.
func TestIntervalsOfFewDocuments(t *testing.T) {
	one := documentSums{4 * math.Ln2, 4, 8}
	if token, byte := (&documents{sums: []documentSums{one, one, one, one}}).intervals(); *token != [2]float64{1, 1} ||
		*byte != [2]float64{0.5, 0.5} {
		t.Errorf("%v, %v", token, byte)
	}
	if token, byte := (&documents{sums: []documentSums{one}}).intervals(); token != nil || byte != nil {
		t.Errorf("one document has the intervals %v, %v", token, byte)
	}
	textless := documentSums{math.Ln2, 1, 0}
	if token, byte := (&documents{sums: []documentSums{one, textless}}).intervals(); token == nil || byte != nil {
		t.Errorf("half of the documents have no text: %v, %v", token, byte)
	}
}

// Targets without a document, which only a damaged dataset has, are an error.
func TestDocumentsCoverTargets(t *testing.T) {
	d := documents{number: map[documentKey]int{}}
	ranges := []dataset.Range{{Start: 1, Length: 2}}
	err := d.add([]int32{5, 6, 7}, []float32{1, 1, 1}, ranges, func(int32) int { return 1 })
	if err == nil || !strings.Contains(err.Error(), "make the dataset's shards again") {
		t.Error(err)
	}
}

// logits are those of probabilities.
func logits(p ...float64) (all []float32) {
	for _, v := range p {
		all = append(all, float32(math.Log(v)+3))
	}
	return all
}

// Calibration of models whose answer is known: made-up logits, and targets that come true as often as is said.
func TestCalibration(t *testing.T) {
	for what, c := range map[string]struct {
		logits                     []float32
		right, of                  int
		err, accuracy, probability float64
	}{
		"honest":             {logits(0.75, 0.25), 3, 4, 0, 0.75, 0.75},
		"too sure":           {logits(0.9, 0.05, 0.05), 1, 2, 0.4, 0.5, 0.9},
		"too modest":         {logits(0.4, 0.3, 0.3), 5, 5, 0.6, 1, 0.4},
		"knows nothing":      {logits(0.2, 0.2, 0.2, 0.2, 0.2), 1, 5, 0, 0.2, 0.2},
		"certain and wrong":  {[]float32{900, -900, 0}, 0, 3, 1, 0, 1},
		"certain and right":  {[]float32{900, -900, 0}, 3, 3, 0, 1, 1},
		"on a bin's border":  {logits(1.0/3, 1.0/3, 1.0/3), 1, 3, 0, 1.0 / 3, 1.0 / 3},
		"a large vocabulary": {make([]float32, 50304), 0, 1, 1.0 / 50304, 0, 1.0 / 50304},
	} {
		var made calibration
		for i := range c.of {
			target := int32(1)
			if i < c.right {
				target = 0
			}
			made.add(c.logits, target)
		}
		r := made.report()
		for name, pair := range map[string][2]float64{"error": {r.Error, c.err}, "accuracy": {r.Accuracy, c.accuracy},
			"confidence": {r.Confidence, c.probability}} {
			if math.Abs(pair[0]-pair[1]) > 1e-6 {
				t.Errorf("%s: %s %g, want %g", what, name, pair[0], pair[1])
			}
		}
		filled := 0
		for _, b := range r.Bins {
			if b.Tokens > 0 {
				filled++
				if b.Tokens != int64(c.of) || *b.Confidence < b.From-1e-6 || *b.Confidence > b.To+1e-6 {
					t.Errorf("%s: bin %+v", what, b)
				}
			}
		}
		if filled != 1 || len(r.Bins) != 15 || r.Bins[14].To != 1 {
			t.Errorf("%s: %d of %d bins have tokens", what, filled, len(r.Bins))
		}
	}
}

// Errors of bins do not make up for one another: a model may be too sure as often as it is too modest.
func TestCalibrationOfBins(t *testing.T) {
	var made calibration
	made.add(logits(0.9, 0.1), 1) // 0.9 sure and wrong
	made.add(logits(0.6, 0.4), 0) // 0.6 sure and right
	made.add(logits(0.6, 0.4), 0)
	made.add(logits(0.6, 0.4), 0)
	if r := made.report(); math.Abs(r.Error-(0.9+3*0.4)/4) > 1e-6 || r.Accuracy != 0.75 {
		t.Errorf("%+v", r)
	}
}

// The stage's calibration is that of the logits of all targets.
func TestCalibrationOfADataset(t *testing.T) {
	manifest := measuretest.Sealed(t,
		seal.Options{SequenceLength: 16, ValidationShare: 0.4, Seed: 3, Counted: []int{2, 12}}, measuretest.Proverbs()...)
	path := byteCheckpoint(t, 16)
	r := evaluated(t, "--in", path, "--dataset", manifest, "--calibration", "--micro-tokens", "48")
	var want calibration
	m, settings := measuretest.Load(t, path, 1)
	data := measuretest.Open(t, manifest)
	for i := range data.Validation.Len() {
		tokens, targets, err := data.Validation.AppendTargets(i, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		all, err := m.Logits(tokens, 0, 16, settings)
		if err != nil {
			t.Fatal(err)
		}
		for k, target := range targets {
			if target >= 0 {
				want.add(all[k*257:][:257], target)
			}
		}
	}
	got, wanted := r.Calibration, want.report()
	if got.Error != wanted.Error || got.Accuracy != wanted.Accuracy || r.Accuracy != nil || r.Breakdown != nil {
		t.Errorf("%+v, want %+v and nothing else of %+v", got, wanted, r)
	}
}
