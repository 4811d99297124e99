package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"bitnet1/shared/data/seal"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure/measuretest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(asModel); path != "" {
		if err := serveModel(path, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	measuretest.Main(m, main)
}

// oracle measures a checkpoint by the definitions, one sequence at a time.
type oracle struct {
	tokens, bytes int64
	nats          float64
	right         int
	bits          []float64 // per token, by sequence
	counts        map[int32]float64
}

func measured(t *testing.T, path, manifest string, sequences int) (o oracle) {
	t.Helper()
	m, settings := measuretest.Load(t, path, 1)
	data := measuretest.Open(t, manifest)
	o.counts = map[int32]float64{}
	for i := range sequences {
		nats, n := o.nats, o.tokens
		tokens, targets, err := data.Validation.AppendTargets(i, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		losses, err := m.Losses(tokens, targets, settings)
		if err != nil {
			t.Fatal(err)
		}
		best, err := m.Greedy(tokens, settings)
		if err != nil {
			t.Fatal(err)
		}
		for k, target := range targets {
			if target < 0 {
				continue
			}
			o.tokens++
			o.counts[target]++
			o.nats += float64(losses[k])
			if target < 256 { // a byte; an end of text is none
				o.bytes++
			}
			if best[k] == target {
				o.right++
			}
		}
		if o.tokens > n {
			o.bits = append(o.bits, (o.nats-nats)/float64(o.tokens-n)/math.Ln2)
		}
	}
	return o
}

// unigram is what the frequencies of the training split alone give on the tokens that were measured: bits per token,
// and the share of its most frequent token.
func (o oracle) unigram(t *testing.T, manifest string, vocab int) (bits, accuracy float64) {
	t.Helper()
	train := measuretest.Open(t, manifest).Train
	counts, total := map[int32]float64{}, 0.0
	for i := range train.Len() {
		_, targets, err := train.AppendTargets(i, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range targets {
			if target >= 0 {
				counts[target]++
				total++
			}
		}
	}
	best := int32(0)
	for id := range int32(vocab) {
		if counts[id] > counts[best] {
			best = id
		}
		bits -= o.counts[id] * math.Log2((counts[id]+1)/(total+float64(vocab)))
	}
	return bits / float64(o.tokens), o.counts[best] / float64(o.tokens)
}

// Reports are of the tokens that are to be predicted, whatever else is in the sequences and however many are computed
// at once, on all of the validation split or its first sequences.
func TestReport(t *testing.T) {
	for what, c := range map[string]struct {
		counted   []int
		flags     string
		sequences int // 0: all
		greedy    bool
	}{
		"all":            {nil, "", 0, false},
		"some targets":   {[]int{3, 14}, "--greedy --micro-tokens 64", 0, true},
		"some sequences": {[]int{0, 15}, "--greedy --micro-tokens 48 --sequences 4", 4, true},
		"one at a time":  {[]int{5, 6}, "--greedy --micro-tokens 1 --sequences 3 --threads 1 --device cpu", 3, true},
		"more than all":  {nil, "--sequences 100000", 0, false},
	} {
		t.Run(what, func(t *testing.T) {
			texts := measuretest.Proverbs()
			for i, text := range texts { // token 0 counts as any other does
				texts[i] = strings.ReplaceAll(text, " ", "\x00\x00\x00")
			}
			manifest := measuretest.Sealed(t,
				seal.Options{SequenceLength: 16, ValidationShare: 0.2, Seed: 3, Counted: c.counted}, texts...)
			path := measuretest.Checkpoint(t, measuretest.Config(16),
				checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
			out := t.TempDir()
			measuretest.Run(t, strings.Fields("--in "+path+" --dataset "+manifest+" --out "+out+" "+c.flags)...)
			var got report
			measuretest.ReadJSON(t, filepath.Join(out, "step-000007_evaluation.json"), &got)
			n := measuretest.Open(t, manifest).Validation.Len()
			if c.sequences > 0 {
				n = c.sequences
			}
			want := measured(t, path, manifest, n)
			bits := want.nats / math.Ln2
			unigramBits, unigramAccuracy := want.unigram(t, manifest, measuretest.Config(16).Vocab)
			if got.Step != 7 || got.Split != "validation" || got.Sequences != n || got.Tokens != want.tokens ||
				got.Bytes != want.bytes {
				t.Errorf("%+v, want %d sequences, %+v", got, n, want)
			}
			for name, pair := range map[string][2]float64{
				"bits_per_token": {got.BitsPerToken, bits / float64(want.tokens)},
				"bits_per_byte":  {got.BitsPerByte, bits / float64(want.bytes)},
				"val_bpc":        {got.ValBPC, got.BitsPerToken}, "unigram_entropy": {got.UnigramEntropy, unigramBits},
			} {
				if !(math.Abs(pair[0]-pair[1]) <= 1e-6*pair[1]) {
					t.Errorf("%s is %g, want %g", name, pair[0], pair[1])
				}
			}
			if (got.Accuracy != nil) != c.greedy {
				t.Fatalf("accuracy %v, asked for: %v", got.Accuracy, c.greedy)
			}
			if what == "some targets" && want.right == 0 {
				t.Error("no token is predicted: choose another model")
			}
			if c.greedy && !(math.Abs(*got.Accuracy-float64(want.right)/float64(want.tokens)) <= 1e-12) {
				t.Errorf("accuracy %g, want %d of %d", *got.Accuracy, want.right, want.tokens)
			}
			if c.greedy && math.Abs(*got.UnigramAccuracy-unigramAccuracy) > 1e-12 {
				t.Errorf("unigram accuracy %g, want %g", *got.UnigramAccuracy, unigramAccuracy)
			}
			if c.counted == nil && n > 1 { // all sequences but perhaps the last weigh the same
				if e := spread(want.bits); got.BitsPerTokenError == nil || *got.BitsPerTokenError < 0.8*e ||
					*got.BitsPerTokenError > 1.2*e {
					t.Errorf("standard error %v, about %g was expected", got.BitsPerTokenError, e)
				}
			}
		})
	}
}

// spread is the standard error of the mean of x.
func spread(x []float64) float64 {
	mean, squares := 0.0, 0.0
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		squares += (v - mean) * (v - mean)
	}
	return math.Sqrt(squares / float64(len(x)-1) / float64(len(x)))
}

// A packed model has the report of its checkpoint.
func TestPackedModel(t *testing.T) {
	manifest := measuretest.Sealed(t, seal.Options{SequenceLength: 16, ValidationShare: 0.2, Seed: 3},
		measuretest.Proverbs()...)
	v76 := measuretest.Config(16)
	v76.StreamBits = 4
	for what, c := range map[string]model.Config{"v76": v76, "v77": v76.V77()} {
		path := measuretest.Checkpoint(t, c, checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1})
		var reports []report
		for _, in := range []string{path, measuretest.Packed(t, path)} {
			out := t.TempDir()
			measuretest.Run(t, "--in", in, "--dataset", manifest, "--out", out, "--greedy")
			var r report
			measuretest.ReadJSON(t, filepath.Join(out, "step-000007_evaluation.json"), &r)
			r.Checkpoint = ""
			reports = append(reports, r)
		}
		if !reflect.DeepEqual(reports[0], reports[1]) || reports[0].Tokens == 0 {
			t.Errorf("%s: the checkpoint has %+v, the packed model %+v", what, reports[0], reports[1])
		}
	}
}

// What cannot be measured is refused, with what to do.
func TestRefuses(t *testing.T) {
	manifest := measuretest.Sealed(t, seal.Options{SequenceLength: 16, ValidationShare: 0.2, Seed: 3},
		measuretest.Proverbs()...)
	trainingOnly := measuretest.Sealed(t, seal.Options{SequenceLength: 16, Seed: 3}, measuretest.Proverbs()...)
	empty := measuretest.Sealed(t, seal.Options{SequenceLength: 16, ValidationShare: 0.5, Seed: 3}, "", "", "", "")
	good := checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1}
	words, few, short := good, measuretest.Config(16), measuretest.Config(8)
	words.Tokenizer = "gpt2"
	few.Vocab = 200
	for want, flags := range map[string]string{
		"tokenize the dataset with --tokenizer gpt2": "--in " +
			measuretest.Checkpoint(t, measuretest.Config(16), words) + " --dataset " + manifest,
		"the dataset has 257 token ids, the checkpoint knows 200": "--in " + measuretest.Checkpoint(t, few, good) +
			" --dataset " + manifest,
		"shard with --sequence-length 8": "--in " + measuretest.Checkpoint(t, short, good) + " --dataset " + manifest,
		"no validation split": "--in " + measuretest.Checkpoint(t, measuretest.Config(16), good) + " --dataset " +
			trainingOnly,
		"stand for no text": "--in " + measuretest.Checkpoint(t, measuretest.Config(16), good) + " --dataset " +
			empty,
		"micro_tokens must be positive": "--in x --dataset y --micro-tokens 0",
		"must not be negative":          "--in x --dataset y --sequences -1",
		"task_limit must not be":        "--in x --dataset y --task-limit -1",
	} {
		cmd, said := measuretest.Program(t, strings.Fields(flags+" --out "+t.TempDir())...)
		if err := cmd.Run(); err == nil || !strings.Contains(said.String(), want) {
			t.Errorf("%v, want %q in\n%s", err, want, said)
		}
	}
}

func TestReportIsDocumented(t *testing.T) { measuretest.Documented(t, "Evaluation", report{}) }

func TestDefaults(t *testing.T) {
	measuretest.Defaults(t, `{"breakdown": false, "calibration": false, "greedy": false, "micro_tokens": 4096,
		"sequences": 0, "task_digests": null, "task_limit": 0, "tasks": null}`)
}
