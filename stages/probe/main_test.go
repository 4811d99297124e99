package main

import (
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/data/seal"
	"bitnet1/shared/data/tokenizer"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
	"bitnet1/shared/measure"
	"bitnet1/shared/measure/measuretest"
)

func TestMain(m *testing.M) { measuretest.Main(m, main) }

// pass is what a model does with one sequence.
type pass struct {
	tokens, targets, greedy []int32
	losses                  []float32
	pointers                [][]int32 // by layer: heads × positions × survivors
}

func passOf(t *testing.T, m *model.Model, settings model.Settings, tokens, targets []int32) pass {
	t.Helper()
	p := pass{tokens: tokens, targets: targets}
	var err error
	if p.losses, err = m.Losses(tokens, targets, settings); err != nil {
		t.Fatal(err)
	}
	for layer := range m.Config().Layers {
		pointers, err := m.Pointers(layer)
		if err != nil {
			t.Fatal(err)
		}
		p.pointers = append(p.pointers, pointers)
	}
	if p.greedy, err = m.Greedy(tokens, settings); err != nil {
		t.Fatal(err)
	}
	return p
}

// chosen are the survivors of one query, best first, as far as there are any.
func (p pass) chosen(layer, head, k, survivors int) []int32 {
	all := p.pointers[layer][(head*len(p.tokens)+k)*survivors:][:survivors]
	for i, u := range all {
		if u < 0 {
			return all[:i]
		}
	}
	return all
}

const seq = 32

// probed runs the program over a checkpoint and returns what it was of beside its reports.
func probed(t *testing.T, c model.Config, documents model.Documents, flags string) (m *model.Model,
	settings model.Settings, data *dataset.Dataset, health healthReport, copying inductionReport) {
	t.Helper()
	manifest := measuretest.Sealed(t,
		seal.Options{SequenceLength: seq, ValidationShare: 0.2, Seed: 3, Counted: []int{1, 32}}, measuretest.Proverbs()...)
	path := measuretest.Checkpoint(t, c,
		checkpoint.Provenance{Step: 7, Tokenizer: "bytes", Gamma: 0.3, Mix: 1, Documents: documents})
	health, copying = reports(t, "--in "+path+" --dataset "+manifest+" "+flags)
	h, i := reports(t, "--in "+measuretest.Packed(t, path)+" --dataset "+manifest+" "+flags)
	if !reflect.DeepEqual(h, health) || !reflect.DeepEqual(i, copying) {
		t.Errorf("the packed model has %+v and %+v, its checkpoint %+v and %+v", h, i, health, copying)
	}
	m, settings = measuretest.Load(t, path, 1)
	return m, settings, measuretest.Open(t, manifest), health, copying
}

// reports runs the program and returns its reports, without the digest of what was probed.
func reports(t *testing.T, flags string) (health healthReport, copying inductionReport) {
	t.Helper()
	out := t.TempDir()
	measuretest.Run(t, strings.Fields(flags+" --out "+out)...)
	measuretest.ReadJSON(t, filepath.Join(out, "step-000007_pointer_health.json"), &health)
	measuretest.ReadJSON(t, filepath.Join(out, "step-000007_induction.json"), &copying)
	health.Checkpoint, copying.Checkpoint = "", ""
	return health, copying
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-6*max(1, math.Abs(want))) {
		t.Errorf("%s is %g, want %g", what, got, want)
	}
}

// The report on validation text agrees with the definitions, a sequence at a time, whether its documents are packed or
// separate, and whether the model is a v76 or a v77.
func TestPointerHealth(t *testing.T) {
	for _, documents := range []model.Documents{{}, {Separate: true, EndOfText: 256}} {
		t.Run(documents.String(), func(t *testing.T) { comparePointerHealth(t, measuretest.Config(seq), documents) })
	}
	t.Run("v77", func(t *testing.T) { comparePointerHealth(t, measuretest.Config(seq).V77(), model.Documents{}) })
}

func comparePointerHealth(t *testing.T, c model.Config, documents model.Documents) {
	const n = 5
	// two sequences at once
	m, settings, data, got, _ := probed(t, c, documents, "--sequences 5 --repeats 1 --micro-tokens 70")
	survivors := c.Survivors(seq)
	positions, repeated, anyHead := 0, 0, 0
	matches := map[[2]int]int{}
	var nats float64
	var early, late []float64 // losses after 50/512 of 32 tokens, and after 500/512
	ends := 0
	for i := range n {
		tokens, targets, err := data.Validation.AppendTargets(i, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := passOf(t, m, settings, tokens, targets)
		start := 0
		for k, target := range targets {
			if documents.Separate && tokens[k] == documents.EndOfText {
				start = k
				ends++
			}
			if target < 0 {
				continue
			}
			positions++
			nats += float64(p.losses[k])
			switch k - start {
			case 3:
				early = append(early, float64(p.losses[k]))
			case 31:
				late = append(late, float64(p.losses[k]))
			}
			before := false
			for u := start; u < k; u++ {
				before = before || tokens[u] == tokens[k]
			}
			if !before {
				continue
			}
			repeated++
			found := false
			for layer := range c.Layers {
				for head := range c.Heads {
					if u := p.chosen(layer, head, k, survivors)[0]; int(u) > start && tokens[u-1] == tokens[k] {
						matches[[2]int{layer, head}]++
						found = true
					}
				}
			}
			if found {
				anyHead++
			}
		}
	}
	if got.Sequences != n || got.Positions != int64(positions) || got.Repeated != int64(repeated) ||
		got.EarlyPosition != 3 || got.LatePosition != 31 {
		t.Errorf("%d sequences, %d positions, %d repeated, compared at %d and %d; want %d, %d, %d, 3 and 31",
			got.Sequences, got.Positions, got.Repeated, got.EarlyPosition, got.LatePosition, n, positions, repeated)
	}
	near(t, "val_bpc", got.ValBPC, nats/float64(positions)/math.Ln2)
	if got.InContextTokens != int64(len(late)) || (got.InContextScore == nil) != (len(early)*len(late) == 0) {
		t.Errorf("an in-context score of %d tokens, %v, want %d", got.InContextTokens, got.InContextScore, len(late))
	}
	if got.InContextScore != nil {
		near(t, "in-context score", *got.InContextScore, mean(late)-mean(early))
	}
	if got.Documents != documents.String() || documents.Separate && ends == 0 {
		t.Errorf("documents are said to be %s, and %d ends lie among them", got.Documents, ends)
	}
	near(t, "global IPMR", got.GlobalIPMR, float64(anyHead)/float64(repeated))
	top := 0.0
	for _, h := range got.Heads {
		want := float64(matches[[2]int{h.Layer, h.Head}]) / float64(repeated)
		near(t, "IPMR", h.IPMR, want)
		top = max(top, want)
	}
	near(t, "the top head's IPMR", got.Top.IPMR, top)
	if len(got.Heads) != c.Layers*c.Heads || got.Step != 7 {
		t.Errorf("%d heads, step %d", len(got.Heads), got.Step)
	}
}

func mean(x []float64) (m float64) {
	for _, v := range x {
		m += v / float64(len(x))
	}
	return m
}

// The report on repeated random tokens agrees with the definitions, a sequence at a time: of the second copy count the
// positions whose next token is in it too.
func TestInduction(t *testing.T) {
	const repeats, seed, half = 200, 9, seq / 2
	m, settings, _, _, got := probed(t, measuretest.Config(seq), model.Documents{},
		"--sequences 1 --repeats 200 --seed 9 --micro-tokens 64")
	text, err := tokenizer.New("bytes")
	if err != nil {
		t.Fatal(err)
	}
	draw, err := newRandomTokens(&measure.Subject{Seq: seq, Tokenizer: text}, Params{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	survivors := m.Config().Survivors(seq)
	var first, second, chance float64
	copied := 0
	behind, behind4 := map[[2]int]int{}, map[[2]int]int{}
	for i := range repeats {
		tokens, targets := make([]int32, seq), make([]int32, seq)
		draw.draw(i, tokens, targets)
		p := passOf(t, m, settings, tokens, targets)
		for k := range seq - 1 {
			switch {
			case k < half-1:
				first += float64(p.losses[k])
			case k >= half:
				second += float64(p.losses[k])
				if p.greedy[k] == tokens[k+1] {
					copied++
				}
				for u := 1; u <= k; u++ {
					if tokens[u-1] == tokens[k] {
						chance += 1 / float64(k+1)
					}
				}
				for layer := range m.Config().Layers {
					for head := range m.Config().Heads {
						// A key behind any earlier place of the token, of which there is one in the first copy at least.
						chosen := p.chosen(layer, head, k, survivors)
						match := func(u int32) bool { return u > 0 && tokens[u-1] == tokens[k] }
						if match(chosen[0]) {
							behind[[2]int{layer, head}]++
						}
						if slices.ContainsFunc(chosen[:min(4, len(chosen))], match) {
							behind4[[2]int{layer, head}]++
						}
					}
				}
			}
		}
	}
	const counted = repeats * (half - 1)
	if got.Repeats != repeats || got.Length != half || got.Symbols != 256 || got.Step != 7 {
		t.Errorf("%d repeats of %d of %d symbols at step %d", got.Repeats, got.Length, got.Symbols, got.Step)
	}
	near(t, "first copy", got.FirstBits, first/counted/math.Ln2)
	near(t, "second copy", got.SecondBits, second/counted/math.Ln2)
	near(t, "copy accuracy", got.CopyAccuracy, float64(copied)/counted)
	near(t, "what guesses copy", got.RandomCopy, 1.0/256)
	near(t, "bits of guesses", got.RandomBits, 8)
	near(t, "what random keys match", got.RandomPrefix, chance/counted)
	some := 0
	for _, h := range got.Heads {
		n := behind[[2]int{h.Layer, h.Head}]
		some += n
		near(t, "prefix matching", h.First, float64(n)/counted)
		near(t, "prefix matching of four", h.AnyOf4, float64(behind4[[2]int{h.Layer, h.Head}])/counted)
	}
	if some == 0 || copied == 0 {
		t.Errorf("heads point behind the first copy %d times, and %d tokens are copied: choose another seed", some, copied)
	}
}

func TestReportsAreDocumented(t *testing.T) {
	measuretest.Documented(t, "Pointer health", healthReport{})
	measuretest.Documented(t, "Induction", inductionReport{})
	measuretest.Documented(t, "Heads", headsReport{})
	measuretest.Documented(t, "Attention", attentionReport{})
}

// One token at a time is allowed, and computes a sequence at once.
func TestOneTokenAtATime(t *testing.T) {
	c := measuretest.Config(seq)
	_, _, _, one, _ := probed(t, c, model.Documents{},
		"--sequences 2 --repeats 1 --micro-tokens 1 --threads 1 --device cpu")
	_, _, _, many, _ := probed(t, c, model.Documents{}, "--sequences 2 --repeats 1 --micro-tokens 64")
	near(t, "IPMR", one.Top.IPMR, many.Top.IPMR)
	near(t, "val_bpc", one.ValBPC, many.ValBPC)
}

func TestDefaults(t *testing.T) {
	measuretest.Defaults(t, `{"micro_tokens": 4096, "repeats": 32, "seed": 42, "sequences": 128,
		"heads": false, "text": "", "prompt": "", "sequence_length": 0, "show": 0, "show_head": "", "text_digest": ""}`)
}
