package cpu

import (
	"encoding/binary"
	"unsafe"
)

// signPanels are a depth × cols matrix of signs, the right side of a product by lookup. A byte has the signs of one
// column in 8 rows. A panel is 64 columns: the bytes of the first 8 rows, then those of the next 8 rows, and so on.
type signPanels struct {
	cols   int
	groups int // of 8 rows, padded to groupStep
	bytes  []byte
}

func newSignPanels(depth, cols int, memory *buffer[byte]) signPanels {
	s := signPanels{cols: cols, groups: (depth + 8*groupStep - 1) / (8 * groupStep) * groupStep}
	s.bytes = memory.take(s.panels() * s.groups * panelCols)
	return s
}

func (s signPanels) panels() int { return (s.cols + panelCols - 1) / panelCols }

// panel returns groups from..to-1 of panel p.
func (s signPanels) panel(p, from, to int) []byte {
	at := p * s.groups * panelCols
	return s.bytes[at+from*panelCols : at+to*panelCols]
}

// alongColumns arranges plane b of w for sums over its columns: column o of the panels is row o of w.
func (d *Device) alongColumns(memory *buffer[byte], w *planes, b int) signPanels {
	s := newSignPanels(w.cols, w.rows, memory)
	stride := 8 * w.bits * w.stride // bytes
	d.parallel(s.panels(), func(p int, _ *scratch) {
		dst := s.panel(p, 0, s.groups)
		n := min(panelCols, w.rows-p*panelCols)
		if n < panelCols {
			clear(dst)
		}
		src := wordBytes(w.words[(p*panelCols*w.bits+b)*w.stride:][:((n-1)*w.bits+1)*w.stride])
		c := 0
		for ; c+8 <= n; c += 8 {
			d.transposeBytes(dst[c:], panelCols, src[c*stride:], stride, s.groups)
		}
		for ; c < n; c++ {
			for g := range s.groups {
				dst[g*panelCols+c] = src[c*stride+g]
			}
		}
	})
	return s
}

// wordBytes is the memory of x as bytes. The first byte of a word is the least significant one: machines are
// little-endian.
func wordBytes(x []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 8*len(x))
}

// transposeBytesGo turns 8 rows of n bytes into n rows of 8.
func transposeBytesGo(dst []byte, dstStride int, src []byte, srcStride, n int) {
	for i := range 8 {
		for c, b := range src[i*srcStride:][:n] {
			dst[c*dstStride+i] = b
		}
	}
}

// alongRows arranges plane b of w for sums over its rows: column k of the panels is column k of w.
func (d *Device) alongRows(memory *buffer[byte], w *planes, b int) signPanels {
	s := newSignPanels(w.rows, w.cols, memory)
	stride := w.bits * w.stride
	d.parallel(s.panels(), func(p int, _ *scratch) {
		dst, whole := s.panel(p, 0, s.groups), w.rows/8
		if whole > 0 {
			d.transposeBits(dst, w.words[b*w.stride+p:], stride, whole)
		}
		if whole < s.groups {
			var words [8]uint64 // the last rows, and zeros
			for i := range w.rows - 8*whole {
				words[i] = w.words[(8*whole+i)*stride+b*w.stride+p]
			}
			transposeBitsGo(dst[whole*panelCols:], words[:], 1, 1)
			clear(dst[min(whole+1, s.groups)*panelCols:])
		}
	})
	return s
}

// transposeBitsGo writes bit c of the eight words of group g to dst[64*g+c]. The words are stride apart.
func transposeBitsGo(dst []byte, src []uint64, stride, groups int) {
	for g := range groups {
		to := dst[g*panelCols:][:panelCols]
		for i := range 8 {
			var x uint64 // byte i of the words, an 8 × 8 matrix of bits
			for j := range 8 {
				x |= src[(8*g+j)*stride] >> (8 * i) & 0xff << (8 * j)
			}
			t := (x ^ x>>7) & 0x00aa00aa00aa00aa
			x ^= t ^ t<<7
			t = (x ^ x>>14) & 0x0000cccc0000cccc
			x ^= t ^ t<<14
			t = (x ^ x>>28) & 0x00000000f0f0f0f0
			x ^= t ^ t<<28
			binary.LittleEndian.PutUint64(to[8*i:], x)
		}
	}
}
