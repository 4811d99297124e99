package cpu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels"
)

// AttendNext reads what Attend reads, for one token or several, in a cache that has been used before.
func TestAttendNextIsAttend(t *testing.T) {
	for _, kind := range kernels.AttentionKinds() {
		for _, heads := range []int{1, 3} { // of 100 or 20 channels
			for _, separate := range []bool{false, true} {
				for _, bits := range [][2]int{{1, 1}, {1, 4}, {3, 1}} {
					name := fmt.Sprintf("%v, %d heads, separate documents %v, %d and %d bits", kind, heads, separate, bits[0], bits[1])
					t.Run(name, func(t *testing.T) {
						a := kernels.Attention{Kind: kind, Batch: 1, Seq: 300, Heads: heads, HeadDim: 100 / (2*heads - 1),
							Survivors: min(4, kind.Rule().MaxSurvivors), Alibi: true}
						compareAttendNext(t, a, separate, kernels.MidRise(bits[0]), kernels.MidRise(bits[1]))
					})
				}
			}
		}
	}
}

func compareAttendNext(t *testing.T, a kernels.Attention, separate bool, queries, values kernels.Quantization) {
	d, random := New(Options{}), rand.New(rand.NewPCG(3, 1))
	d.SetScalars(kernels.Scalars{Gamma: 0.7, Tau: 1})
	width, words := a.Heads*a.HeadDim, wordsOf(a.HeadDim)
	q, k := randomLevels(d, random, a.Seq, width, queries), randomLevels(d, random, a.Seq, width, kernels.Sign())
	v := randomLevels(d, random, a.Seq, width, values)
	if separate {
		starts := make(ints, a.Seq)
		for i := range starts {
			starts[i] = int32(i / 130 * 130)
		}
		a.Starts = starts
	}
	want, _ := d.NewPlanes(a.Seq, width, values)
	wantPointers := make(ints, a.Heads*a.Seq*a.Survivors)
	d.Attend(want, wantPointers, q, k, v, a)

	caches := []*Cache{d.NewCache(a, values), d.NewCache(a, values)}
	caches[0].reserve(a.Seq, words)
	for i := range caches[0].keys { // of another sequence
		for j := range caches[0].keys[i] {
			caches[0].keys[i][j] = random.Uint64() >> ((64*words - a.HeadDim) % 64)
		}
	}
	// Two sequences go on together. The second one has the same tokens, a piece later.
	before := 0
	for first, pieces := 0, []int{1, 6, 1, 1, 130, 3}; first < a.Seq; pieces = append(pieces[1:], pieces[0]) {
		var next []NextTokens
		for i, positions := range [][2]int{{first, min(a.Seq, first+pieces[0])}, {before, first}} {
			n := NextTokens{Attention: a, First: positions[0], Cache: caches[i]}
			if n.Seq = positions[1]; n.Seq == n.First {
				continue
			}
			if a.Starts != nil {
				n.Starts = a.Starts.Slice(0, n.Seq)
			}
			n.Pointers = make(ints, a.Heads*(n.Seq-n.First)*a.Survivors)
			next = append(next, n)
		}
		part := func(p *planes) *planes { // rows of both
			part := p.Slice(0, 0).(*planes)
			part.words = nil
			for _, n := range next {
				part.rows += n.Seq - n.First
				part.words = append(part.words, p.Slice(n.First, n.Seq).(*planes).words...)
			}
			return part
		}
		rows := part(want.(*planes)).rows
		got, _ := d.NewPlanes(rows, width, values)
		d.AttendNext(got, part(q), part(k), part(v), next)
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.(*planes).words, part(want.(*planes)).words) {
			t.Fatalf("after position %d other values are read", first)
		}
		for i, p := range next {
			for h := range a.Heads {
				n := (p.Seq - p.First) * a.Survivors
				if !slices.Equal(p.Pointers.(ints)[h*n:][:n], wantPointers[(h*a.Seq+p.First)*a.Survivors:][:n]) {
					t.Fatalf("sequence %d, head %d: positions %d to %d have other pointers", i, h, p.First, p.Seq)
				}
			}
		}
		before, first = first, next[0].Seq
	}
}

func randomLevels(d *Device, random *rand.Rand, rows, cols int, q kernels.Quantization) *planes {
	p, _ := d.NewPlanes(rows, cols, q)
	index := make([]byte, cols)
	for r := range rows {
		for i := range index {
			index[i] = byte(random.IntN(1 << q.Planes()))
		}
		d.setLevels(p.(*planes), r, index)
	}
	return p.(*planes)
}

func TestAttendNextRefuses(t *testing.T) {
	a := kernels.Attention{Kind: kernels.RWSP, Batch: 1, Seq: 5, Heads: 2, HeadDim: 8, Survivors: 2}
	for want, change := range map[string]func(a *kernels.Attention, first *int, pointers *ints){
		"want one sequence that the cache holds": func(a *kernels.Attention, first *int, _ *ints) { a.Seq, *first = 6, 4 },
		"of 2 sequences":                         func(a *kernels.Attention, _ *int, _ *ints) { a.Batch = 2 },
		"noise true":                             func(a *kernels.Attention, _ *int, _ *ints) { a.Gumbel = true },
		"2 pointers, want 8":                     func(_ *kernels.Attention, _ *int, p *ints) { *p = (*p)[:2] },
		"2 starts, want 5":                       func(a *kernels.Attention, _ *int, _ *ints) { a.Starts = make(ints, 2) },
		"planes of 2 × 16, want 1 × 16": func(_ *kernels.Attention, first *int, p *ints) {
			*first, *p = 4, (*p)[:4]
		},
	} {
		d := New(Options{})
		cache := d.NewCache(a, kernels.Sign())
		planes := func() kernels.Planes { p, _ := d.NewPlanes(2, 16, kernels.Sign()); return p }
		changed, first, pointers := a, 3, make(ints, 8)
		change(&changed, &first, &pointers)
		d.AttendNext(planes(), planes(), planes(), planes(),
			[]NextTokens{{Attention: changed, First: first, Cache: cache, Pointers: pointers}})
		if err := d.Sync(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestAttendNextRefusesOtherKinds(t *testing.T) {
	a := kernels.Attention{Kind: kernels.RWSP, Batch: 1, Seq: 5, Heads: 2, HeadDim: 8, Survivors: 2}
	for _, change := range []func(a *kernels.Attention){
		nil, func(a *kernels.Attention) { a.Alibi = true }, func(a *kernels.Attention) { a.Kind = kernels.Pointer },
	} {
		d, b := New(Options{}), a
		var next []NextTokens
		want := "tokens of no sequence"
		if change != nil {
			want = "want one kind of attention"
			change(&b)
			for _, a := range []kernels.Attention{a, b} {
				cache := d.NewCache(a, kernels.Sign())
				next = append(next, NextTokens{Attention: a, First: 4, Cache: cache, Pointers: make(ints, 4)})
			}
		}
		planes := func() kernels.Planes { p, _ := d.NewPlanes(2, 16, kernels.Sign()); return p }
		d.AttendNext(planes(), planes(), planes(), planes(), next)
		if err := d.Sync(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Planes of words are those that the words were downloaded from.
func TestPlanesOf(t *testing.T) {
	d, random := New(Options{}), rand.New(rand.NewPCG(3, 1))
	for _, q := range []kernels.Quantization{kernels.Sign(), kernels.Normal(3)} {
		for _, cols := range []int{1, 64, 100, 256, 512} {
			want := randomLevels(d, random, 7, cols, q)
			words := make([]uint64, 7*q.Planes()*wordsOf(cols))
			if err := d.DownloadPlanes(words, want); err != nil {
				t.Fatal(err)
			}
			p, err := d.PlanesOf(words, 7, cols, q)
			if err != nil {
				t.Fatal(err)
			}
			got := p.(*planes)
			if !slices.Equal(got.words, want.words) ||
				!slices.Equal(got.values, want.values) || got.stride != want.stride {
				t.Errorf("%v, %d columns: other planes", q, cols)
			}
			if shared := &got.words[0] == &words[0]; shared != (cols%256 == 0) {
				t.Errorf("%v, %d columns: memory is shared: %v", q, cols, shared)
			}
			if _, err := d.PlanesOf(words[1:], 7, cols, q); err == nil {
				t.Errorf("%v, %d columns: a word is missing, and nothing is refused", q, cols)
			}
			if words[len(words)-1] |= 1 << 63; cols%64 != 0 {
				if _, err := d.PlanesOf(words, 7, cols, q); err == nil || !strings.Contains(err.Error(), "row 6 ") {
					t.Errorf("%v, %d columns: a bit behind the last column: %v", q, cols, err)
				}
			}
		}
	}
}

// A pointer without noise is the one that noise of 0 gives, among equal scores too.
func TestPointerWithoutNoise(t *testing.T) {
	for _, alibi := range []bool{false, true} {
		for _, dim := range []int{6, 100} {
			a := kernels.Attention{Kind: kernels.Pointer, Batch: 2, Seq: 300, Heads: 2, HeadDim: dim, Survivors: 1, Alibi: alibi}
			d, random := New(Options{}), rand.New(rand.NewPCG(3, 1))
			rows, width := a.Batch*a.Seq, a.Heads*a.HeadDim
			starts := make(ints, rows)
			for i := range starts {
				starts[i] = int32(i % a.Seq / 280 * 280)
			}
			a.Starts = starts
			q := randomLevels(d, random, rows, width, kernels.MidRise(1+dim%3))
			k := randomLevels(d, random, rows, width, kernels.Sign())
			v := randomLevels(d, random, rows, width, kernels.MidRise(3))
			var outs [2]kernels.Planes
			var pointers [2]ints
			for i := range outs {
				outs[i], _ = d.NewPlanes(rows, width, kernels.MidRise(2))
				pointers[i] = make(ints, rows*a.Heads)
				d.Attend(outs[i], pointers[i], q, k, v, a)
				a.Noise = make(floats, rows*a.Heads*a.Seq)
			}
			if err := d.Sync(); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(pointers[0], pointers[1]) ||
				!slices.Equal(outs[0].(*planes).words, outs[1].(*planes).words) {
				t.Errorf("ALiBi %v, %d channels: other pointers or values", alibi, dim)
			}
		}
	}
}
