package cpu

import (
	"errors"
	"fmt"
	"math"

	"bitnet1/kernels"
)

// Cache holds the keys and values of one layer and one sequence as bits: those of each head together, a position after
// the other. Its memory grows with the sequence.
type Cache struct {
	positions int // at most
	values    kernels.Quantization
	keys      [][]uint64 // of every head: positions so far × words
	read      [][]uint64 // of every head: positions so far × planes × words
}

// NewCache returns a cache of a.Seq positions for attention a.
func (d *Device) NewCache(a kernels.Attention, values kernels.Quantization) *Cache {
	return &Cache{positions: a.Seq, values: values, keys: make([][]uint64, a.Heads), read: make([][]uint64, a.Heads)}
}

// reserve makes room for n positions of so many words.
func (c *Cache) reserve(n, words int) {
	for i, keys := range c.keys {
		if len(keys) >= n*words {
			continue
		}
		room := min(max(n, 2*len(keys)/words, 64), c.positions)
		c.keys[i] = append(make([]uint64, 0, room*words), keys...)[:room*words]
		room *= c.values.Planes()
		c.read[i] = append(make([]uint64, 0, room*words), c.read[i]...)[:room*words]
	}
}

// NextTokens are some tokens that follow First others of one sequence, whose keys and values are in the cache.
// Attention is that of the sequence: its batch is 1, Seq is the number of positions up to the last new token, and
// Starts, where given, are of all Seq positions. Noise is not supported. Pointers are Heads × new tokens × Survivors.
type NextTokens struct {
	kernels.Attention
	First    int
	Cache    *Cache
	Pointers kernels.Ints
}

// AttendNext is Attend for the next tokens of several sequences, whose attention differs in Seq and Starts alone.
// Queries, keys, values and out have a row for each new token, of Heads*HeadDim channels, one sequence after the other.
// The caches take the new keys and values, in the place of those that they had from position First on.
func (d *Device) AttendNext(out, q, k, v kernels.Planes, next []NextTokens) {
	d.run("AttendNext", checkAttendNext(out, q, k, v, next), func() {
		cached, asked := next[0].Cache.values.Planes(), q.Quantization().Planes()
		all := d.newHead(next[0].Attention, q.Quantization(), next[0].Cache.values)
		rows := make([]int, len(next)) // the first of every sequence
		for i, n := range next {
			n.Cache.reserve(n.Seq, all.words)
			if i+1 < len(next) {
				rows[i+1] = rows[i] + n.Seq - n.First
			}
		}
		d.attendHeads(out.(*planes), &all, len(next)*all.Heads, func(task int, outputs []uint64, s *scratch) {
			n, row, i := &next[task/all.Heads], rows[task/all.Heads], task%all.Heads
			h := placeHead(&all, n.Attention, i, s)
			from, to := n.First*h.words, h.Seq*h.words
			h.q = s.cachedQueries.take(to * asked) // only those from first on are read
			h.k, h.v = n.Cache.keys[i][:to], n.Cache.read[i][:to*cached]
			q.(*planes).copyBits(h.q[from*asked:], row, h.col, h.HeadDim)
			k.(*planes).copyBits(h.k[from:], row, h.col, h.HeadDim)
			v.(*planes).copyBits(h.v[from*cached:], row, h.col, h.HeadDim)
			if h.Starts != nil {
				h.starts = h.Starts.(ints)
			}
			queries := h.Seq - n.First
			h.attend(outputs, row, i, n.Pointers.(ints)[i*queries*h.Survivors:], n.First, s)
		})
	})
}

func checkAttendNext(out, q, k, v kernels.Planes, next []NextTokens) error {
	if len(next) == 0 {
		return errors.New("tokens of no sequence: want one at least")
	}
	kind := func(a kernels.Attention) kernels.Attention {
		a.Seq, a.Starts = 0, nil
		return a
	}
	a, values, rows := kind(next[0].Attention), next[0].Cache.values, 0
	for _, n := range next {
		if err := n.check(); err != nil {
			return err
		}
		if kind(n.Attention) != a || n.Cache.values != values {
			return fmt.Errorf("attention %+v with values of %v beside %+v with values of %v: want one kind of attention",
				kind(n.Attention), n.Cache.values, a, values)
		}
		rows += n.Seq - n.First
	}
	width := a.Heads * a.HeadDim
	for _, p := range []kernels.Planes{out, q, k, v} {
		if p.Rows() != rows || p.Cols() != width {
			return fmt.Errorf("planes of %d × %d, want %d × %d", p.Rows(), p.Cols(), rows, width)
		}
	}
	queries := q.Quantization()
	if queries != kernels.MidRise(queries.Bits()) || k.Quantization() != kernels.Sign() || v.Quantization() != values ||
		out.Quantization().Bits() > values.Bits() {
		return fmt.Errorf("queries of %v, keys of %v, values of %v, output of %v: want signs or mid-rise levels of "+
			"queries, signs of keys, values of %v, and no more bits of the output", queries, k.Quantization(), v.Quantization(),
			out.Quantization(), values)
	}
	return nil
}

func (n *NextTokens) check() error {
	if n.Batch != 1 || n.First < 0 || n.Seq <= n.First || n.Seq > n.Cache.positions || len(n.Cache.keys) != n.Heads ||
		n.Gumbel || n.Noise != nil {
		return fmt.Errorf("positions %d to %d of %d sequences with a cache of %d positions, %d heads with one of %d, noise "+
			"%v: want one sequence that the cache holds, without noise", n.First, n.Seq, n.Batch, n.Cache.positions, n.Heads,
			len(n.Cache.keys), n.Gumbel || n.Noise != nil)
	}
	if want := (n.Seq - n.First) * n.Heads * n.Survivors; n.Pointers.Len() != want {
		return fmt.Errorf("%d pointers, want %d", n.Pointers.Len(), want)
	}
	if n.Starts != nil && n.Starts.Len() != n.Seq {
		return fmt.Errorf("%d starts, want %d", n.Starts.Len(), n.Seq)
	}
	return nil
}

// PlanesOf returns planes for reading that have the words that DownloadPlanes writes: rows × planes × ceil(cols/64).
// Where cols is a multiple of 256 they lie where words lies, which may be memory that cannot be written; otherwise
// words is copied. Bits beyond cols have to be 0.
func (d *Device) PlanesOf(words []uint64, rows, cols int, q kernels.Quantization) (kernels.Planes, error) {
	if err := kernels.CheckPlanes(rows, cols, q); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	n, bits := wordsOf(cols), q.Planes()
	if len(words) != rows*bits*n {
		return nil, fmt.Errorf("cpu: %d words of planes, want %d × %d × %d", len(words), rows, bits, n)
	}
	padding := ^(uint64(math.MaxUint64) >> (64*n - cols))
	for i := n - 1; i < len(words); i += n {
		if words[i]&padding != 0 {
			return nil, fmt.Errorf("cpu: row %d of planes has bits beyond its %d columns", i/n/bits, cols)
		}
	}
	p := &planes{rows: rows, cols: cols, bits: bits, quantization: q, values: valuesOf(q), stride: n, words: words}
	if n%wordsPerStep != 0 {
		p.stride = (n + wordsPerStep - 1) / wordsPerStep * wordsPerStep
		p.words = make([]uint64, rows*bits*p.stride)
		for i := range rows * bits {
			copy(p.words[i*p.stride:], words[i*n:][:n])
		}
	}
	return p, nil
}
