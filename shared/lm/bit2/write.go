package bit2

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"

	"bitnet1/kernels"
	"bitnet1/kernels/number/float16"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"

	"github.com/zeebo/blake3"
)

// Write packs the model of configuration c. It takes the parameters one at a time, in the order of c.Parameters, and
// keeps the packed ones in memory. test is stored where Version has a place for it; nil: none. Equal models give
// equal bytes. A model whose weights are still blended with their latents (mix below 1) is refused, because its weights
// are not ±1.
func Write(w io.Writer, c model.Config, p checkpoint.Provenance, parameters iter.Seq2[model.Parameter, error],
	test *SelfTest) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	if p.Mix != 1 {
		return fmt.Errorf("packing the checkpoint of step %d: its weights are not ±1 yet (mix %v): take one from "+
			"after the annealing",
			p.Step, p.Mix)
	}
	if err := write(w, versionOf(c, p), c, p, parameters, test); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	return nil
}

func write(w io.Writer, v version, c model.Config, p checkpoint.Provenance,
	parameters iter.Seq2[model.Parameter, error], test *SelfTest) error {
	list, data, err := v.packAll(c, parameters)
	if err != nil {
		return err
	}
	sections := []section{{Name: tensorSection, Size: int64(len(data))}}
	if test != nil && v > v1 {
		text, err := json.Marshal(test)
		if err != nil {
			return fmt.Errorf("self-test: %w", err)
		}
		sections = append(sections, section{selfTestSection, int64(len(data)), int64(len(text))})
		data = v.pad(append(data, text...))
	}
	if p.TokenizerFile != nil {
		sections = append(sections, section{tokenizerSection, int64(len(data)), int64(len(p.TokenizerFile))})
		data = v.pad(append(data, p.TokenizerFile...))
	}
	header, err := v.formatHeader(c, p, sections, list)
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	digest := blake3.New()
	out := io.MultiWriter(w, digest)
	prefix := binary.LittleEndian.AppendUint32([]byte(magic), uint32(v))
	prefix = binary.LittleEndian.AppendUint64(prefix, uint64(len(header)))
	if _, err := out.Write(append(prefix, header...)); err != nil {
		return err
	}
	if _, err := out.Write(data); err != nil {
		return err
	}
	_, err = w.Write(digest.Sum(nil))
	return err
}

// packAll packs the parameters, which must be those of c, and returns their directory and their bytes.
func (v version) packAll(c model.Config, parameters iter.Seq2[model.Parameter, error]) ([]entry, []byte, error) {
	due := c.Parameters()
	kinds := make([]string, 0, len(due))
	var runs [groups][]byte
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
		e := newEntry(c, p, kindOf(c, p))
		kinds = append(kinds, e.Kind)
		run := &runs[v.group(p)]
		*run = slices.Grow(*run, int(v.padded(e.size())))
		*run = v.pad(appendElements(*run, e, c.Codebook(), p.Data))
	}
	if len(kinds) < len(due) {
		return nil, nil, fmt.Errorf("parameter %q is missing", due[len(kinds)].Name)
	}
	list, _ := v.directory(c, func(i int, _ model.Parameter) string { return kinds[i] })
	return list, append(runs[0], runs[1]...), nil
}

// pad appends zeros, up to a multiple of the alignment.
func (v version) pad(b []byte) []byte {
	return append(b, make([]byte, v.padded(int64(len(b)))-int64(len(b)))...)
}

func appendElements(b []byte, e entry, codebook kernels.Quantization, data []float32) []byte {
	switch e.Kind {
	case kindSign:
		for row := range slices.Chunk(data, e.Shape[1]) {
			b = appendSigns(b, row)
		}
	case kindPlanes:
		for row := range slices.Chunk(data, e.Shape[1]) {
			b = appendPlanes(b, row, codebook)
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
