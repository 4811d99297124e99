package model

import (
	"math/rand/v2"
	"slices"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// Starts are those of the last end of text at or before a token in its sequence, or the sequence's own.
func TestStarts(t *testing.T) {
	tokens := []int32{3, 9, 4, 9, 9, 5, 6, 9, 9, 1, 2, 3, 4, 5, 6, 7} // two sequences; 9 is the end of text
	want := []int32{0, 1, 1, 3, 4, 4, 4, 7, 0, 0, 0, 0, 0, 0, 0, 0}
	if got := (Documents{Separate: true, EndOfText: 9}).Starts(tokens, 8); !slices.Equal(got, want) {
		t.Errorf("starts %v, want %v", got, want)
	}
	if got := (Documents{EndOfText: 9}).Starts(tokens, 8); !slices.Equal(got, make([]int32, 16)) {
		t.Errorf("packed: starts %v, want zeros", got)
	}
}

func TestSeparateNeedsAnEndOfText(t *testing.T) {
	for _, id := range []int32{-1, 31} {
		if _, err := New(small(), cpu.New(cpu.Options{}),
			Options{Documents: Documents{Separate: true, EndOfText: id}}); err == nil {
			t.Errorf("token %d of 31 was taken for the end of text", id)
		}
	}
}

func TestDocumentsAlone(t *testing.T) {
	checkDocumentsAlone(t, func() kernels.Device { return cpu.New(cpu.Options{}) })
	t.Run("plain", func(t *testing.T) {
		checkDocumentsAlone(t, func() kernels.Device { return cpu.New(cpu.Options{PlainGo: true}) })
	})
}

// checkDocumentsAlone holds documents that share sequences against each of them alone in a sequence of its own: logits
// are equal to the bit, and the gradients add up to those of all. Packed, they are not.
func checkDocumentsAlone(t *testing.T, open func() kernels.Device) {
	list := variants()
	for name, change := range map[string]func(*Config){
		"seven survivors": func(c *Config) { c.RWSPK = 7 },
		"two survivors":   func(c *Config) { c.RWSPK = 2 },
		"no alibi":        func(c *Config) { c.Alibi = false },
		"far shift":       func(c *Config) { c.KShiftLayers, c.KShiftOffset = []int{0, 1}, 3 },
	} {
		c := small()
		change(&c)
		list[name] = c
	}
	for name, c := range list {
		t.Run(name, func(t *testing.T) {
			c.Seq = 40
			packed := newDocuments(c)
			separate := packed.model(t, open(), 2, c.Seq, true)
			got, gradients := packed.run(t, separate, packed.tokens, packed.targets)
			sums := make([][]float64, len(gradients))
			for _, d := range packed.documents() {
				alone := packed.model(t, open(), 1, d.to-d.from, false)
				want, part := packed.run(t, alone, packed.tokens[d.from:d.to], packed.targets[d.from:d.to])
				if !slices.Equal(got[d.from*c.Vocab:d.to*c.Vocab], want) {
					t.Errorf("tokens %d to %d have other logits than alone", d.from, d.to)
				}
				for i, p := range part {
					sums[i] = append(sums[i], make([]float64, len(p.Data)-len(sums[i]))...)
					for j, v := range p.Data { // of means: all targets count alike
						sums[i][j] += float64(v) * float64(d.to-d.from) / float64(len(packed.tokens))
					}
				}
			}
			for i, p := range gradients {
				if e := distance(p.Data, sums[i]); e > 1e-5 {
					t.Errorf("the gradient of %s is %.2g of its norm from the documents' own", p.Name, e)
				}
			}
			across := packed.model(t, open(), 2, c.Seq, false)
			if other, _ := packed.run(t, across, packed.tokens, packed.targets); slices.Equal(other, got) {
				t.Error("packed documents have the logits of separate ones")
			}
		})
	}
}

// documents are two sequences of several, which begin with an end of text each.
type documents struct {
	Config
	tokens, targets []int32
}

// stretch is where a document lies.
type stretch struct{ from, to int }

const endOfText = 30

func newDocuments(c Config) documents {
	d, r := documents{Config: c}, rand.New(rand.NewPCG(8, 1))
	for _, length := range []int{5, 1, 12, 1, 1, 4, 16, 40} {
		for i := range length {
			id := int32(r.IntN(endOfText))
			if i == 0 {
				id = endOfText
			}
			d.tokens, d.targets = append(d.tokens, id), append(d.targets, int32(r.IntN(c.Vocab)))
		}
	}
	return d
}

func (d documents) documents() (list []stretch) {
	for i, id := range d.tokens {
		if id == endOfText {
			list = append(list, stretch{i, i})
		}
		list[len(list)-1].to = i + 1
	}
	return list
}

func (d documents) model(t *testing.T, dev kernels.Device, batch, seq int, separate bool) *Model {
	t.Helper()
	m, err := New(d.Config, dev, Options{Batch: batch, Seq: seq,
		Documents: Documents{Separate: separate, EndOfText: endOfText}})
	if err == nil {
		err = m.Init(5)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// run returns all logits and the gradients.
func (d documents) run(t *testing.T, m *Model, tokens, targets []int32) ([]float32, []Parameter) {
	t.Helper()
	s := Settings{Gamma: 0.6, Tau: 0.8}
	logits, err := m.Logits(tokens, 0, len(tokens), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Backward(tokens, targets, s); err != nil {
		t.Fatal(err)
	}
	list, err := m.Gradients()
	if err != nil {
		t.Fatal(err)
	}
	return logits, list
}
