package bit2

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"bitnet1/kernels/float16"
	"bitnet1/shared/checkpoint"

	"github.com/zeebo/blake3"
)

// Write packs m. Equal models give equal bytes. A model whose weights are still blended with their latents (mix below 1)
// has no packed form and is refused.
func Write(w io.Writer, m checkpoint.Model) error {
	if err := m.Check(); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	if m.Mix != 1 {
		return fmt.Errorf("packing the checkpoint of step %d: its weights are not ±1 yet (mix %v): take one from after the annealing",
			m.Step, m.Mix)
	}
	list, _ := directory(m.Parameters, func(i int) string { return kindOf(m.Parameters[i]) })
	header, err := formatHeader(m, list)
	if err != nil {
		return fmt.Errorf("packing: header: %w", err)
	}
	digest := blake3.New()
	out := io.MultiWriter(w, digest)
	prefix := binary.LittleEndian.AppendUint32([]byte(magic), version)
	prefix = binary.LittleEndian.AppendUint64(prefix, uint64(len(header)))
	if _, err := out.Write(append(prefix, header...)); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	for i, e := range list {
		if err := writeTensor(out, e, m.Parameters[i].Data); err != nil {
			return fmt.Errorf("packing %s: %w", e.Name, err)
		}
	}
	if _, err := w.Write(digest.Sum(nil)); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	return nil
}

// writeTensor writes one tensor and its padding, a piece at a time.
func writeTensor(w io.Writer, e entry, data []float32) error {
	piece := 1 << 16 // elements
	if e.Kind == kindSign {
		piece = e.Shape[1] * max(1, piece/e.Shape[1]) // whole rows
	}
	var buffer []byte
	for part := range slices.Chunk(data, piece) {
		buffer = appendElements(buffer[:0], e, part)
		if _, err := w.Write(buffer); err != nil {
			return err
		}
	}
	_, err := w.Write(make([]byte, padded(e.size())-e.size()))
	return err
}

func appendElements(b []byte, e entry, data []float32) []byte {
	switch e.Kind {
	case kindSign:
		for row := range slices.Chunk(data, e.Shape[1]) {
			b = appendSigns(b, row)
		}
	case kindFloat16:
		for _, v := range data {
			b = binary.LittleEndian.AppendUint16(b, float16.FromFloat32(v))
		}
	default:
		for _, v := range data {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b
}

// appendSigns packs one row, bit j of word i for element 64i+j: 1 for +1. As in the model, sign(0) = +1.
func appendSigns(b []byte, row []float32) []byte {
	for part := range slices.Chunk(row, wordBits) {
		var word uint64
		for j, v := range part {
			if v >= 0 {
				word |= 1 << j
			}
		}
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return b
}
