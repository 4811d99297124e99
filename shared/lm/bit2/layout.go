// Package bit2 writes and reads packed models: one bit a weight, a few bits for the codebook of a v77, scales and
// thresholds as float16 if that loses nothing, and a digest of the whole file. docs/formats/bit2.md describes the
// bytes.
//
// A packed model computes the same as its checkpoint, to the last bit. It cannot be trained further, because it has no
// latents. The package chooses no file names.
package bit2

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"bitnet1/kernels"
	"bitnet1/kernels/number/float16"
	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
)

const (
	magic         = "BIT2"
	prefixSize    = 16 // magic, version, length of the header
	digestSize    = 32
	maxHeader     = 1 << 24 // more than the header of the largest configuration
	wordBits      = 64
	kindSign      = "sign"   // one bit per element, rows padded to whole words
	kindPlanes    = "planes" // the bits of an element in as many planes, a row's planes one after another
	kindFloat16   = "f16"
	kindFloat32   = "f32"
	tensorSection = "tensors"

	tokenizerSection = "tokenizer.json"
)

// version is how a file is laid out.
type version uint32

const (
	v1     version = 1 // v75 and v76
	v2     version = 2 // v77 with queries of signs, too; fit for mapping into memory
	v3     version = 3 // every model; laid out as version 2
	newest         = v3
)

// Version is the version of the format in which a model is written: the first that has words for it, so that equal
// models give equal bytes for ever.
func Version(c model.Config, p checkpoint.Provenance) int { return int(versionOf(c, p)) }

func versionOf(c model.Config, p checkpoint.Provenance) version {
	least := leastVersion(c)
	if p.TokenizerFile != nil {
		return max(v2, least)
	}
	return least
}

// leastVersion is the first version that has words for models of configuration c.
func leastVersion(c model.Config) version {
	switch {
	case c.Queries() != kernels.Sign():
		return v3
	case c.HasV77():
		return v2
	}
	return v1
}

// align is what the data of tensors and sections begin at a multiple of, in the file.
func (v version) align() int64 {
	if v == v1 {
		return 8
	}
	return 64 // a cache line, the widest vector registers
}

func (v version) padded(n int64) int64 { return (n + v.align() - 1) &^ (v.align() - 1) }

// headerSize is the length of a header whose text has n bytes: data begin at a multiple of align.
func (v version) headerSize(n int64) int64 { return v.padded(prefixSize+n) - prefixSize }

// groups are how many runs of tensors the data consist of.
const groups = 2

// group is the run that p belongs to. From version 2 on all weights come first: the weights of q, k and v are then
// neighbours, and may be read as one matrix.
func (v version) group(p model.Parameter) int {
	if v == v1 || len(p.Shape) == 2 {
		return 0
	}
	return 1
}

// entry is one tensor of the directory.
type entry struct {
	Name   string  `json:"name"`
	Kind   string  `json:"kind"`
	Bits   int     `json:"bits,omitempty"` // of kindPlanes
	Unit   float32 `json:"unit,omitempty"` // of kindPlanes: what 1 of an element's integer is worth
	Shape  []int   `json:"shape"`
	Offset int64   `json:"offset"` // from the start of the data
}

// size is the number of bytes before padding.
func (e entry) size() int64 {
	switch e.Kind {
	case kindSign:
		return int64(e.Shape[0]) * int64(words(e.Shape[1])) * (wordBits / 8)
	case kindPlanes:
		return int64(e.Shape[0]) * int64(e.Bits) * int64(words(e.Shape[1])) * (wordBits / 8)
	case kindFloat16:
		return 2 * int64(e.Shape[0])
	}
	return 4 * int64(e.Shape[0])
}

func (e entry) equals(other entry) bool {
	return e.Name == other.Name && e.Kind == other.Kind && e.Bits == other.Bits && e.Unit == other.Unit &&
		slices.Equal(e.Shape, other.Shape) && e.Offset == other.Offset
}

// words is the number of 64-bit words that hold a row of n bits.
func words(n int) int { return (n + wordBits - 1) / wordBits }

// section is one part of the data: from version 2 on, where the tensors are the first.
type section struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset"` // from the start of the data
	Size   int64  `json:"size"`   // before padding
}

// isCodebook says whether p has the quantization of Config.Codebook; other weights are signs.
func isCodebook(p model.Parameter) bool { return p.Name == "codebook.weight" }

// kinds lists the kinds in which p may be stored, the smallest first.
func kinds(c model.Config, p model.Parameter) []string {
	switch {
	case isCodebook(p) && c.Codebook() != kernels.Sign():
		return []string{kindPlanes}
	case len(p.Shape) == 2:
		return []string{kindSign}
	case strings.HasSuffix(p.Name, ".alpha"), strings.HasSuffix(p.Name, ".theta"):
		return []string{kindFloat16, kindFloat32}
	}
	return []string{kindFloat32}
}

// kindOf is the kind in which p is stored. Scales and thresholds are float16 only if no value changes. A parameter
// without data counts as one whose values do not change.
func kindOf(c model.Config, p model.Parameter) string {
	k := kinds(c, p)
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

// newEntry is the entry of p, stored in a kind, without its offset.
func newEntry(c model.Config, p model.Parameter, kind string) entry {
	e := entry{Name: p.Name, Kind: kind, Shape: p.Shape}
	if kind == kindPlanes {
		e.Bits, e.Unit = c.Codebook().Bits(), c.Codebook().Unit()
	}
	return e
}

// directory lists the entries of c's parameters, and the size of their data. kind is the kind of parameter i.
func (v version) directory(c model.Config, kind func(i int, p model.Parameter) string) (list []entry, size int64) {
	parameters := c.Parameters()
	for i, p := range parameters {
		list = append(list, newEntry(c, p, kind(i, p)))
	}
	for group := range groups {
		for i, p := range parameters {
			if v.group(p) == group {
				list[i].Offset = size
				size += v.padded(list[i].size())
			}
		}
	}
	return list, size
}

// formatHeader is the JSON header, padded with spaces. Each tensor is on a line of its own, for people who look at the
// file.
func (v version) formatHeader(c model.Config, p checkpoint.Provenance, sections []section,
	list []entry) ([]byte, error) {
	var b strings.Builder
	var failed error
	write := func(before string, value any) {
		text, err := json.Marshal(value)
		if err != nil {
			failed = err
		}
		fmt.Fprintf(&b, "%s%s", before, text)
	}
	write(`{"config":`, c)
	write(",\n\"metadata\":", p.Metadata())
	if v > v1 {
		write(",\n\"sections\":", sections)
	}
	b.WriteString(",\n\"tensors\":[\n")
	for i, e := range list {
		between := ",\n"
		if i == 0 {
			between = ""
		}
		write(between, e)
	}
	b.WriteString("\n]}")
	n := int64(b.Len())
	b.WriteString(strings.Repeat(" ", int(v.headerSize(n)-n)))
	return []byte(b.String()), failed
}

// Size is the number of bytes of the packed model m without a self-test, and without a tokenizer of its own. Parameters
// without data count as float16 if float16 is allowed, so that a configuration alone has a size:
// Size(checkpoint.Model{Config: c, Parameters: c.Parameters()}).
func Size(m checkpoint.Model) (int64, error) {
	v := leastVersion(m.Config)
	list, data := v.directory(m.Config, func(i int, _ model.Parameter) string { return kindOf(m.Config, m.Parameters[i]) })
	header, err := v.formatHeader(m.Config, m.Provenance, []section{{Name: tensorSection, Size: data}}, list)
	return prefixSize + int64(len(header)) + data + digestSize, err
}
