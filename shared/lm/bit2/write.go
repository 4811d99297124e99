package bit2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"

	"bitnet1/kernels/number/float16"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"

	"github.com/zeebo/blake3"
)

// Write packs the model of configuration c. It takes the parameters one at a time, in the order of c.Parameters, and
// keeps the packed ones in memory. Equal models give equal bytes. A model whose weights are still blended with their
// latents (mix below 1) is refused, because its weights are not ±1.
func Write(w io.Writer, c model.Config, p checkpoint.Provenance, parameters iter.Seq2[model.Parameter, error]) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	if p.Mix != 1 {
		return fmt.Errorf("packing the checkpoint of step %d: its weights are not ±1 yet (mix %v): take one from "+
			"after the annealing",
			p.Step, p.Mix)
	}
	list, data, err := packAll(c.Parameters(), parameters)
	if err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	header, err := formatHeader(c, p, list)
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
	if _, err := out.Write(data); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	if _, err := w.Write(digest.Sum(nil)); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	return nil
}

// packAll packs the parameters, which must be those of due, and returns their directory and their bytes.
func packAll(due []model.Parameter, parameters iter.Seq2[model.Parameter, error]) ([]entry, []byte, error) {
	kinds := make([]string, 0, len(due))
	var data bytes.Buffer
	for p, err := range parameters {
		switch i := len(kinds); {
		case err != nil:
			return nil, nil, err
		case i == len(due):
			return nil, nil, fmt.Errorf("parameter %q is one more than the configuration has", p.Name)
		default:
			if err := p.Check(due[i]); err != nil {
				return nil, nil, err
			}
		}
		e := entry{Kind: kindOf(p), Shape: p.Shape}
		kinds = append(kinds, e.Kind)
		data.Grow(int(padded(e.size())))
		data.Write(appendElements(data.AvailableBuffer(), e, p.Data))
		data.Write(make([]byte, padded(e.size())-e.size()))
	}
	if len(kinds) < len(due) {
		return nil, nil, fmt.Errorf("parameter %q is missing", due[len(kinds)].Name)
	}
	list, _ := directory(due, func(i int) string { return kinds[i] })
	return list, data.Bytes(), nil
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

// appendSigns packs a row: bit j of word i is 1 if element 64i+j is +1. As in the model, sign(0) = +1.
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
