package cpu

import (
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

// AttendNext is Attend for some tokens that follow `first` others of one sequence, whose keys and values are in the
// cache. Queries, keys and values have a row for each new token, of Heads*HeadDim channels. The cache takes the new
// keys and values, in the place of those that it had from position first on.
//
// The batch is 1, and a.Seq is the number of positions up to the last new token. pointers are Heads × rows × Survivors,
// and a.Starts, where given, are of all a.Seq positions. Noise is not supported.
func (d *Device) AttendNext(out kernels.Planes, pointers kernels.Ints, q, k, v kernels.Planes, cache *Cache, first int,
	a kernels.Attention) {
	d.run("AttendNext", checkAttendNext(out, pointers, q, k, v, cache, first, a), func() {
		all := d.newHead(a, cache.values)
		cache.reserve(a.Seq, all.words)
		d.attend(out.(*planes), pointers.(ints), first, &all, func(i int, s *scratch) *head {
			h := placeHead(&all, i, s)
			h.q = s.cachedQueries.take(h.Seq * h.words) // only those from first on are read
			h.k, h.v = cache.keys[i][:h.Seq*h.words], cache.read[i][:h.Seq*h.words*cache.values.Planes()]
			q.(*planes).copyBits(h.q[first*h.words:], 0, h.col, h.HeadDim)
			k.(*planes).copyBits(h.k[first*h.words:], 0, h.col, h.HeadDim)
			v.(*planes).copyBits(h.v[first*h.words*cache.values.Planes():], 0, h.col, h.HeadDim)
			if h.Starts != nil {
				h.starts = h.Starts.(ints)
			}
			return h
		})
	})
}

func checkAttendNext(out kernels.Planes, pointers kernels.Ints, q, k, v kernels.Planes, cache *Cache, first int,
	a kernels.Attention) error {
	rows, width := a.Seq-first, a.Heads*a.HeadDim
	if a.Batch != 1 || first < 0 || rows < 1 || a.Seq > cache.positions || len(cache.keys) != a.Heads || a.Gumbel ||
		a.Noise != nil {
		return fmt.Errorf("positions %d to %d of %d sequences with a cache of %d positions, %d heads with one of %d, noise "+
			"%v: want one sequence that the cache holds, without noise", first, a.Seq, a.Batch, cache.positions, a.Heads,
			len(cache.keys), a.Gumbel || a.Noise != nil)
	}
	if n := rows * a.Heads * a.Survivors; pointers.Len() != n {
		return fmt.Errorf("%d pointers, want %d", pointers.Len(), n)
	}
	if a.Starts != nil && a.Starts.Len() != a.Seq {
		return fmt.Errorf("%d starts, want %d", a.Starts.Len(), a.Seq)
	}
	for _, p := range []kernels.Planes{out, q, k, v} {
		if p.Rows() != rows || p.Cols() != width {
			return fmt.Errorf("planes of %d × %d, want %d × %d", p.Rows(), p.Cols(), rows, width)
		}
	}
	if q.Quantization() != kernels.Sign() || k.Quantization() != kernels.Sign() || v.Quantization() != cache.values ||
		out.Quantization().Bits() > cache.values.Bits() {
		return fmt.Errorf("queries of %v, keys of %v, values of %v, output of %v: want signs of queries and keys, values of "+
			"%v, and no more bits of the output", q.Quantization(), k.Quantization(), v.Quantization(), out.Quantization(),
			cache.values)
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
