// Package bit2 writes and reads packed models: one bit a weight, scales and thresholds as float16 if that loses
// nothing, and a digest of the whole file. docs/formats/bit2.md describes the bytes.
//
// A packed model computes the same as its checkpoint, to the last bit. It cannot be trained further, because it has no
// latents. The package runs no model and chooses no file names.
package bit2

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"bitnet1/kernels/number/float16"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
)

const (
	magic       = "BIT2"
	version     = 1
	prefixSize  = 16 // magic, version, length of the header
	digestSize  = 32
	align       = 8       // alignment of the header and of the tensors
	maxHeader   = 1 << 24 // more than the header of the largest configuration
	wordBits    = 64
	kindSign    = "sign" // one bit per element, rows padded to whole words
	kindFloat16 = "f16"
	kindFloat32 = "f32"
)

// entry is one tensor of the directory.
type entry struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Shape  []int  `json:"shape"`
	Offset int64  `json:"offset"` // from the start of the data
}

// size is the number of bytes before padding.
func (e entry) size() int64 {
	switch e.Kind {
	case kindSign:
		return int64(e.Shape[0]) * int64(words(e.Shape[1])) * (wordBits / 8)
	case kindFloat16:
		return 2 * int64(e.Shape[0])
	}
	return 4 * int64(e.Shape[0])
}

// words is the number of 64-bit words that hold a row of n signs.
func words(n int) int { return (n + wordBits - 1) / wordBits }

// kinds lists the kinds in which p may be stored, the smallest first.
func kinds(p model.Parameter) []string {
	switch {
	case len(p.Shape) == 2:
		return []string{kindSign}
	case strings.HasSuffix(p.Name, ".alpha"), strings.HasSuffix(p.Name, ".theta"):
		return []string{kindFloat16, kindFloat32}
	}
	return []string{kindFloat32}
}

// kindOf is the kind in which p is stored. Scales and thresholds are float16 only if no value changes. A parameter
// without data counts as one whose values do not change.
func kindOf(p model.Parameter) string {
	k := kinds(p)
	if k[0] != kindFloat16 {
		return k[0]
	}
	for _, v := range p.Data {
		if math.Float32bits(float16.Round(v)) != math.Float32bits(v) {
			return k[1]
		}
	}
	return k[0]
}

// directory lists the entries of parameters one after another, and the size of their data. kind is the kind of
// parameter i.
func directory(parameters []model.Parameter, kind func(i int) string) (list []entry, size int64) {
	list = make([]entry, len(parameters))
	for i, p := range parameters {
		list[i] = entry{Name: p.Name, Kind: kind(i), Shape: p.Shape, Offset: size}
		size += padded(list[i].size())
	}
	return list, size
}

func padded(n int64) int64 { return (n + align - 1) &^ (align - 1) }

// formatHeader is the JSON header, padded with spaces. Each tensor is on a line of its own, for people who look at the
// file.
func formatHeader(c model.Config, p checkpoint.Provenance, list []entry) ([]byte, error) {
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	metadata, err := json.Marshal(p.Metadata())
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "{\"config\":%s,\n\"metadata\":%s,\n\"tensors\":[\n", config, metadata)
	for i, e := range list {
		line, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		b.Write(line)
		if i < len(list)-1 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("]}")
	b.WriteString(strings.Repeat(" ", int(padded(int64(b.Len())))-b.Len()))
	return []byte(b.String()), nil
}

// Size is the number of bytes of the packed model m. Parameters without data count as float16 if float16 is allowed, so
// that a configuration alone has a size: Size(checkpoint.Model{Config: c, Parameters: c.Parameters()}).
func Size(m checkpoint.Model) (int64, error) {
	list, data := directory(m.Parameters, func(i int) string { return kindOf(m.Parameters[i]) })
	header, err := formatHeader(m.Config, m.Provenance, list)
	return prefixSize + int64(len(header)) + data + digestSize, err
}
