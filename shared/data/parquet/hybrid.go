package parquet

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

var errHybrid = errors.New("a run of levels or indices that ends early: the file is corrupt")

// hybrid decodes small integers in runs, repeated or bit-packed: levels, dictionary indices and booleans.
type hybrid struct {
	data  []byte
	width uint   // bits of an integer, at most 32
	run   uint64 // integers left in the current run
	same  bool   // they are all equal to value
	value uint32
	bits  []byte // otherwise they are packed here,
	bit   uint64 // from this bit on
}

// read fills dst.
func (h *hybrid) read(dst []uint32) error {
	for len(dst) > 0 {
		if h.run == 0 {
			if err := h.next(); err != nil {
				return err
			}
			continue
		}
		n := int(min(h.run, uint64(len(dst))))
		if h.same {
			for i := range dst[:n] {
				dst[i] = h.value
			}
		} else {
			h.unpack(dst[:n])
		}
		h.run -= uint64(n)
		dst = dst[n:]
	}
	return nil
}

// next begins a run. A run takes at least a byte, so that empty runs come to an end.
func (h *hybrid) next() error {
	head, n := binary.Uvarint(h.data)
	if n <= 0 || head>>1 > 1<<40 {
		return errHybrid
	}
	h.data = h.data[n:]
	h.run, h.same = head>>1, head&1 == 0
	if !h.same {
		size := h.run * uint64(h.width)
		if h.run *= 8; size > uint64(len(h.data)) {
			// Some writers leave out the padding of the last run.
			size = uint64(len(h.data))
			if h.width > 0 {
				h.run = size * 8 / uint64(h.width)
			}
			if h.run == 0 {
				return errHybrid
			}
		}
		h.bits, h.data, h.bit = h.data[:size], h.data[size:], 0
		return nil
	}
	size := int(h.width+7) / 8
	if size > len(h.data) {
		return errHybrid
	}
	h.value = 0
	for i := range size {
		h.value |= uint32(h.data[i]) << (8 * i)
	}
	h.data = h.data[size:]
	return nil
}

// unpack reads integers from the packed bits, lowest bit first.
func (h *hybrid) unpack(dst []uint32) {
	mask := uint64(1)<<h.width - 1
	for i := range dst {
		dst[i] = uint32(load64(h.bits, h.bit>>3) >> (h.bit & 7) & mask)
		h.bit += uint64(h.width)
	}
}

// load64 is the eight bytes of b from i on, zeros beyond its end.
func load64(b []byte, i uint64) uint64 {
	if i+8 <= uint64(len(b)) {
		return binary.LittleEndian.Uint64(b[i:])
	}
	var v uint64
	for k := uint64(0); i+k < uint64(len(b)); k++ {
		v |= uint64(b[i+k]) << (8 * k)
	}
	return v
}

// levelWidth is the number of bits of levels from 0 to top.
func levelWidth(top int) uint { return uint(bits.Len(uint(top))) }
