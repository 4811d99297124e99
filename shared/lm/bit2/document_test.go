package bit2

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"bitnet1/shared/lm/checkpoint"
	"bitnet1/shared/lm/model"
)

var update = flag.Bool("update", false, "rewrite the worked example in the format's document")

const (
	document = "../../../docs/formats/bit2.md"
	begin    = "<!-- worked example: go test ./shared/lm/bit2 -update -->\n"
	end      = "<!-- end of worked example -->\n"
)

// tiny is the model of the worked example. Its values follow from their place, as the document says.
func tiny() checkpoint.Model {
	c := model.Config{Vocab: 3, D: 2, Layers: 1, Heads: 1, FF: 2, Seq: 4, Eps: 1e-5, StreamBits: 1, Alibi: true}.V76()
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

// TestDocument holds the worked example of the document to what Write writes, and reads the document's own bytes back.
func TestDocument(t *testing.T) {
	page, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	example, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has lost the marks around its worked example", document)
	}
	packed := pack(t, tiny())
	want := describe(t, packed)
	if *update {
		if err := os.WriteFile(document, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		example = want
	}
	if example != want {
		t.Errorf("the worked example of %s differs from what is written; run go test ./shared/lm/bit2 -update",
			document)
	}
	b := transcribe(t, example)
	if !bytes.Equal(b, packed) {
		t.Fatalf("the document's bytes are not the file's")
	}
	m, err := unpack(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m.Config, tiny().Config) {
		t.Errorf("the document's bytes hold configuration %+v", m.Config)
	}
}

// describe renders a packed model for people: bytes in hexadecimal with their meaning, the header as the text it is.
func describe(t *testing.T, packed []byte) string {
	m, err := unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	data := prefixSize + int(binary.LittleEndian.Uint64(packed[8:]))
	list, _ := directory(m.Parameters, func(i int) string { return kindOf(m.Parameters[i]) })
	var out strings.Builder
	line := func(at, n int, meaning string) {
		text := fmt.Sprintf("%06x  %-47s  %s", at, fmt.Sprintf("% x", packed[at:at+n]), meaning)
		out.WriteString(strings.TrimSpace(text) + "\n")
	}
	out.WriteString("```text\n")
	line(0, 4, `magic "BIT2"`)
	line(4, 4, "version 1")
	line(8, 8, fmt.Sprintf("length of the header: %d bytes", data-prefixSize))
	fmt.Fprintf(&out, "```\n\nFrom offset %06x, the header:\n\n```json\n%s\n```\n\nAnd from %06x:\n\n```text\n",
		prefixSize, strings.TrimRight(string(packed[prefixSize:data]), " "), data)
	for i, e := range list {
		for at := int64(0); at < e.size(); at += 16 {
			meaning := fmt.Sprintf("%s, %s: %s", e.Name, e.Kind, values(m.Parameters[i], e, at))
			line(data+int(e.Offset+at), int(min(16, padded(e.size())-at)), meaning)
		}
	}
	out.WriteString("```\n\nLast, the digest:\n\n```text\n")
	line(len(packed)-32, 16, "blake3-256 of all bytes before")
	line(len(packed)-16, 16, "")
	out.WriteString("```\n")
	return out.String()
}

// values renders what the 16 bytes from at hold: two rows of signs, or a short list of numbers.
func values(p model.Parameter, e entry, at int64) string {
	if e.Kind != kindSign {
		return fmt.Sprint(p.Data)
	}
	var rows []string
	for r := at / 8; r < min(at/8+2, int64(e.Shape[0])); r++ {
		rows = append(rows, fmt.Sprintf("row %d is %+.0f", r, p.Data[int(r)*e.Shape[1]:][:e.Shape[1]]))
	}
	return strings.Join(rows, ", ")
}

// transcribe is the way back, knowing only how the document is laid out: hexadecimal up to two spaces, and JSON as
// text, padded with spaces to the length that the prefix gives.
func transcribe(t *testing.T, example string) []byte {
	var b []byte
	for i, block := range strings.Split(example, "```") {
		if i%2 == 0 {
			continue
		}
		if header, ok := strings.CutPrefix(block, "json\n"); ok {
			length := int(binary.LittleEndian.Uint64(b[8:]))
			b = fmt.Appendf(b, "%-*s", length, strings.TrimSuffix(header, "\n"))
			continue
		}
		for _, line := range strings.Split(strings.TrimSpace(strings.TrimPrefix(block, "text\n")), "\n") {
			var at int
			fmt.Sscanf(line, "%x", &at)
			raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(line[8:min(55, len(line))]), " ", ""))
			if err != nil || at != len(b) {
				t.Fatalf("line %q does not follow %d bytes (%v)", line, len(b), err)
			}
			b = append(b, raw...)
		}
	}
	return b
}
