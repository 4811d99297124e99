package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels/cpu"
)

// attributed is a model of one layer without a feed-forward part, whose stream is not quantized: its residual stream is
// the embedding and what the heads add, so that direct logits can be told from logits.
func attributed(t *testing.T, c Config, heads float32) *Model {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	m, err := New(c, cpu.New(cpu.Options{Workers: 1}), Options{Batch: 2, Inference: true, ScaleBits: 32,
		Bonsai: true})
	if err != nil {
		t.Fatal(err)
	}
	list := c.Parameters()
	for i := range list {
		p := &list[i]
		p.Data = make([]float32, p.Size())
		for k := range p.Data {
			switch {
			case strings.HasSuffix(p.Name, ".theta"), strings.Contains(p.Name, "down.alpha"):
			case strings.Contains(p.Name, "o.alpha"):
				p.Data[k] = heads * (0.1 + r.Float32())
			case strings.HasSuffix(p.Name, ".alpha"), strings.Contains(p.Name, "norm"):
				p.Data[k] = 0.1 + r.Float32()
			default:
				p.Data[k] = float32(r.NormFloat64())
			}
		}
	}
	if err := m.Load(Each(list)); err != nil {
		t.Fatal(err)
	}
	return m
}

// What the embedding and all heads add to a logit is the logit, but for the root mean square of the stream.
func TestDirectLogitsAddUp(t *testing.T) {
	base := Config{Vocab: 40, D: 32, Layers: 1, Heads: 4, FF: 8, Seq: 12, Alibi: true, Eps: 1e-12, StreamBits: 16}
	levels := base.V76()
	levels.ValueBits, levels.ReadBits, levels.CodebookBits, levels.Hadamard = 4, 4, 4, 16
	for name, c := range map[string]Config{"v75": base.V75(), "v76": base.V76(), "levels and rotation": levels,
		"bonsai": base.V76()} {
		r := rand.New(rand.NewPCG(3, 4))
		tokens := make([]int32, 2*c.Seq)
		for i := range tokens {
			tokens[i] = int32(r.IntN(c.Vocab))
		}
		s := Settings{Gamma: 0.6, Mix: 1}
		if name == "bonsai" { // half of the weights are their latents
			s.Mix = 0.5
		}
		m := attributed(t, c, 1)
		if err := m.KeepReads(); err != nil {
			t.Fatal(err)
		}
		logits, err := m.Logits(tokens, 0, len(tokens), s)
		if err != nil {
			t.Fatal(err)
		}
		asked := []int32{3, 17, 39, 0, 20, 8}
		const from = 5
		direct, err := m.DirectLogits(0, from, len(tokens), asked)
		if err != nil {
			t.Fatal(err)
		}
		embedded, err := attributed(t, c, 0).Logits(tokens, 0, len(tokens), s)
		if err != nil {
			t.Fatal(err)
		}
		// The stream of an embedding has ±1, or levels, of one root mean square; its logits are divided by it.
		for row := from; row < len(tokens); row++ {
			rms := rmsOfRow(t, m, tokens[row])
			var ratios []float64
			for i, id := range asked {
				sum := rms * float64(embedded[row*c.Vocab+int(id)])
				for h := range c.Heads {
					sum += float64(direct[((row-from)*c.Heads+h)*len(asked)+i])
				}
				ratios = append(ratios, sum/float64(logits[row*c.Vocab+int(id)]))
			}
			if low, high := slices.Min(ratios), slices.Max(ratios); math.Abs(high-low) > 1e-3*high {
				t.Errorf("%s, row %d: logits are what embedding and heads add, divided by %v, and not by one number", name, row,
					ratios)
			}
		}
	}
}

// rmsOfRow is the root mean square of the embedding of a token.
func rmsOfRow(t *testing.T, m *Model, id int32) float64 {
	t.Helper()
	row := m.codebook
	row.Out, row.Quantized = 1, row.Quantized.Slice(int(id), int(id)+1)
	row.Mixed = row.Mixed.Slice(int(id)*row.In, int(id+1)*row.In)
	values, err := m.effective(row)
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, v := range values {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum / float64(len(values)))
}

// What v75's heads read are the values at their pointers, which the layers before the last keep as well.
func TestReadsOfPointers(t *testing.T) {
	c := Config{Vocab: 40, D: 24, Layers: 3, Heads: 3, FF: 16, Seq: 10, Alibi: true, Eps: 1e-5, StreamBits: 1}.V75()
	m, err := New(c, cpu.New(cpu.Options{Workers: 1}), Options{Inference: true})
	if err == nil {
		err = m.Init(5)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Reads(1); err == nil || !strings.Contains(err.Error(), "KeepReads") {
		t.Errorf("reads that were not kept: %v", err)
	}
	if err := m.KeepReads(); err != nil {
		t.Fatal(err)
	}
	tokens := []int32{1, 2, 3, 1, 2, 3, 4, 5, 1, 2}
	if _, err := m.Greedy(tokens, Settings{Mix: 1}); err != nil {
		t.Fatal(err)
	}
	for layer := range c.Layers {
		reads, err := m.Reads(layer)
		if err != nil {
			t.Fatal(err)
		}
		pointers, err := m.Pointers(layer)
		if err != nil {
			t.Fatal(err)
		}
		// Two queries of a head that read the same key read the same; the first query reads its own value.
		for h := range c.Heads {
			seen := map[int32][]float32{}
			for k := range tokens {
				u := pointers[h*len(tokens)+k]
				read := reads[k*c.D+h*c.HeadDim():][:c.HeadDim()]
				if before, ok := seen[u]; ok && !slices.Equal(before, read) {
					t.Errorf("layer %d, head %d: two queries read key %d, and read %v and %v", layer, h, u, before, read)
				}
				seen[u] = read
				for _, x := range read {
					if x != 1 && x != -1 {
						t.Fatalf("layer %d, head %d reads %v", layer, h, read)
					}
				}
			}
		}
	}
	first, err := m.Reads(0)
	if err != nil {
		t.Fatal(err)
	}
	last, err := m.Reads(2)
	if err != nil || slices.Equal(first, last) {
		t.Errorf("the first and the last layer read the same (%v)", err)
	}
	if _, err := m.DirectLogits(0, 0, 1, []int32{40}); err == nil || !strings.Contains(err.Error(), "vocabulary of 40") {
		t.Errorf("logits of a token that is not in the vocabulary: %v", err)
	}
}
