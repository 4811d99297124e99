package bit2

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
)

var update = flag.Bool("update", false, "rewrite the worked example in the format's document")

const (
	document = "../../../docs/formats/bit2.md"
	begin    = "<!-- worked example of version %d: go test ./shared/lm/bit2 -update -->\n"
	end      = "<!-- end of worked example of version %d -->\n"
)

// tiny is the model of the first worked example. Its values follow from their place, as the document says.
func tiny() checkpoint.Model {
	return placed(model.Config{Vocab: 3, D: 2, Layers: 1, Heads: 1, FF: 2, Seq: 4, Eps: 1e-5, StreamBits: 1,
		Alibi: true}.V76())
}

// tinyV77 is the model of the second.
func tinyV77() checkpoint.Model {
	c := tiny().Config
	c.StreamBits, c.HiddenBits, c.ValueBits, c.ReadBits, c.CodebookBits, c.Hadamard = 4, 4, 4, 3, 2, 2
	return placed(c)
}

// placed is a model whose values follow from their place.
func placed(c model.Config) checkpoint.Model {
	m := checkpoint.Model{Config: c, Parameters: c.Parameters(), Provenance: checkpoint.Provenance{
		Step: 7, Tokens: 28, Tokenizer: "bytes", Gamma: 0.5, Mix: 1,
	}}
	for i, p := range m.Parameters {
		data := make([]float32, p.Size())
		for j := range data {
			switch {
			case len(p.Shape) == 2:
				data[j] = float32((i+j)%3) - 1 // -1, 0, +1, -1 …: the signs are - + +
			case strings.HasSuffix(p.Name, "up.theta"):
				data[j] = 0.1 // which float16 does not hold
			case strings.HasSuffix(p.Name, "theta"):
				data[j] = 0.25 * float32(j)
			default:
				data[j] = 1 + 0.5*float32(j)
			}
		}
		m.Parameters[i].Data = data
	}
	return m
}

// TestDocument holds the worked examples of the document to what Write writes, and reads the document's own bytes back.
func TestDocument(t *testing.T) {
	for version, m := range map[int]checkpoint.Model{1: tiny(), 2: tinyV77()} {
		packed := packTested(t, m, tinyTest(t))
		b := transcribe(t, exampleOf(t, version, describe(t, packed)))
		if !bytes.Equal(b, packed) {
			t.Fatalf("version %d: the document's bytes are not the file's", version)
		}
		got, err := unpack(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Config, m.Config) {
			t.Errorf("version %d: the document's bytes hold configuration %+v", version, got.Config)
		}
	}
}

// exampleOf is the document's worked example, which must be as wanted.
func exampleOf(t *testing.T, version int, want string) string {
	page, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf(begin, version), fmt.Sprintf(end, version)
	before, rest, ok := strings.Cut(string(page), begin)
	example, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has lost the marks around its worked example of version %d", document, version)
	}
	if *update {
		if err := os.WriteFile(document, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		example = want
	}
	if example != want {
		t.Errorf("the worked example of version %d in %s differs from what is written; run go test ./shared/lm/bit2 "+
			"-update", version, document)
	}
	return example
}

// describe renders a packed model for people: bytes in hexadecimal with their meaning, JSON as the text it is. Zeros
// between two parts are left out.
func describe(t *testing.T, packed []byte) string {
	f, err := New("model", bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := readAll(f)
	if err != nil {
		t.Fatal(err)
	}
	data := prefixSize + int(binary.LittleEndian.Uint64(packed[8:]))
	var out strings.Builder
	line := func(at, n int, meaning string) {
		text := fmt.Sprintf("%06x  %-47s  %s", at, fmt.Sprintf("% x", packed[at:at+n]), meaning)
		out.WriteString(strings.TrimSpace(text) + "\n")
	}
	out.WriteString("```text\n")
	line(0, 4, `magic "BIT2"`)
	line(4, 4, fmt.Sprintf("version %d", f.version))
	line(8, 8, fmt.Sprintf("length of the header: %d bytes", data-prefixSize))
	fmt.Fprintf(&out, "```\n\nFrom offset %06x, the header:\n\n```json\n%s\n```\n\nAnd from %06x:\n\n```text\n",
		prefixSize, strings.TrimRight(string(packed[prefixSize:data]), " "), data)
	for _, i := range f.inOrder() {
		e := f.list[i]
		for at := int64(0); at < e.size(); at += 16 {
			stored := packed[data+int(e.Offset):]
			meaning := fmt.Sprintf("%s, %s: %s", e.Name, e.Kind, values(m.Parameters[i], e, stored, at))
			line(data+int(e.Offset+at), int(min(16, f.version.padded(e.size())-at)), meaning)
		}
	}
	for _, s := range f.sections[1:] {
		fmt.Fprintf(&out, "```\n\nFrom %06x, section %s:\n\n```json\n%s\n```\n\n```text\n", data+int(s.Offset), s.Name,
			packed[data+int(s.Offset):][:s.Size])
	}
	out.WriteString("```\n\nLast, the digest:\n\n```text\n")
	line(len(packed)-32, 16, "blake3-256 of all bytes before")
	line(len(packed)-16, 16, "")
	out.WriteString("```\n")
	return strings.ReplaceAll(out.String(), "```text\n```\n\n", "")
}

// inOrder are the numbers of the tensors in the order of their places.
func (f *File) inOrder() []int {
	order := make([]int, len(f.list))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(f.list[a].Offset, f.list[b].Offset) })
	return order
}

// values renders what the 16 bytes from at of a tensor hold: two rows of signs, a row of levels, or a short list of
// numbers.
func values(p model.Parameter, e entry, data []byte, at int64) string {
	if len(e.Shape) == 1 {
		return fmt.Sprint(p.Data)
	}
	width := e.Shape[1]
	if e.Kind == kindPlanes {
		return fmt.Sprintf("row %d is %g × %+d", at/16, e.Unit, integersOf(data[at:][:8*e.Bits], width, e.Bits))
	}
	var rows []string
	for r := at / 8; r < min(at/8+2, int64(e.Shape[0])); r++ {
		rows = append(rows, fmt.Sprintf("row %d is %+.0f", r, p.Data[int(r)*width:][:width]))
	}
	return strings.Join(rows, ", ")
}

// transcribe is the way back, knowing only how the document is laid out: JSON as text, the header padded with spaces to
// the length that the prefix gives; hexadecimal up to two spaces; and zeros up to the next place that is named.
func transcribe(t *testing.T, example string) []byte {
	var b []byte
	goTo := func(text string) {
		var at int
		if _, err := fmt.Sscanf(text, "%x", &at); err != nil || at < len(b) || at >= len(b)+64 {
			t.Fatalf("%.40q does not follow %d bytes (%v)", text, len(b), err)
		}
		b = append(b, make([]byte, at-len(b))...)
	}
	for i, block := range strings.Split(example, "```") {
		if i%2 == 0 {
			if _, place, ok := strings.Cut(strings.ToLower(block), "from "); ok {
				goTo(strings.TrimPrefix(place, "offset "))
			}
			continue
		}
		if text, ok := strings.CutPrefix(block, "json\n"); ok {
			length := 0
			if len(b) == prefixSize {
				length = int(binary.LittleEndian.Uint64(b[8:]))
			}
			b = fmt.Appendf(b, "%-*s", length, strings.TrimSuffix(text, "\n"))
			continue
		}
		for _, line := range strings.Split(strings.TrimSpace(strings.TrimPrefix(block, "text\n")), "\n") {
			goTo(line)
			raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(line[8:min(55, len(line))]), " ", ""))
			if err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			b = append(b, raw...)
		}
	}
	return b
}

// tinyTest is the self-test of tinyV77.
func tinyTest(t testing.TB) *SelfTest {
	t.Helper()
	m := tinyV77()
	test, err := NewSelfTest(loaded(t, m, m.Config.Seq), model.Settings{Gamma: m.Gamma, Mix: 1})
	if err != nil {
		t.Fatal(err)
	}
	return test
}
