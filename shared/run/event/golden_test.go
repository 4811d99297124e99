package event

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files and the reference page anew")

// TestBytesOnTheWireAreStable compares the bytes of every kind with those of its declaration, because events are kept
// for good and stages in other languages read them. A new field may change the bytes: run the test with -update. Any
// other difference needs a new version of the kind.
func TestBytesOnTheWireAreStable(t *testing.T) {
	path := filepath.Join("testdata", fmt.Sprintf("version-%d.txt", Version))
	var made []string
	for _, kind := range Kinds() {
		b, err := Marshal(filled(kind))
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, paragraph(kind.Kind(), b))
	}
	made = append(made, paragraph("envelope", encoded(t)))
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(made, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for p := range strings.SplitSeq(string(golden), "\n\n") {
		kept = append(kept, strings.TrimSuffix(p, "\n")+"\n")
	}
	for _, p := range kept {
		if !slices.Contains(made, p) {
			t.Errorf("these bytes have changed:\n%s", p)
		}
	}
	for _, p := range made {
		if !slices.Contains(kept, p) {
			t.Errorf("these bytes are new (go test ./shared/run/event -update keeps those of a new kind):\n%s", p)
		}
	}
	for _, p := range kept {
		name, text, _ := strings.Cut(p, "\n")
		b, err := hex.DecodeString(strings.ReplaceAll(text, "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		if name == "envelope" {
			if _, err := Decode(b); err != nil {
				t.Error(err)
			}
			continue
		}
		readGolden(t, name, b)
	}
}

// paragraph is a name, and bytes in lines of 60.
func paragraph(name string, b []byte) string {
	text := name + "\n"
	for line := range slices.Chunk(b, 60) {
		text += hex.EncodeToString(line) + "\n"
	}
	return text
}

func readGolden(t *testing.T, name string, b []byte) {
	t.Helper()
	for _, kind := range Kinds() {
		if kind.Kind() != name {
			continue
		}
		v := reflect.New(reflect.TypeOf(kind))
		if err := Unmarshal(b, v.Interface()); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := v.Elem().Interface(); !reflect.DeepEqual(got, filled(kind)) {
			t.Errorf("%s reads as %+v", name, got)
		}
		return
	}
	t.Errorf("%s is no kind any more", name)
}

func encoded(t *testing.T) []byte {
	t.Helper()
	e, err := New("run-1", "pack", strings.Repeat("ab", 32), Part{Index: 1, Count: 2}, filled(PackWritten{}))
	if err != nil {
		t.Fatal(err)
	}
	e.Time = 1_700_000_000_000
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A body from before a field was added reads as one without it, encodes to the bytes that it had, and is the same work.
func TestAnOlderCheckpointIsTheSameWork(t *testing.T) {
	older, err := hex.DecodeString(
		"8aa473746570cd8000a56d6f64656c85a6646967657374a3c3a465a46b696e64a5c3a4c3a466aa6d656469615f74797065a1" +
			"67a473697a65ce0001c000a46e616d65a5c3a4c3a469a5737461746585a6646967657374a3c3a46ba46b696e64a5c3a4c3a4" +
			"6caa6d656469615f74797065a16da473697a65ce01a00000a46e616d65a5c3a4c3a46fa86d616e696665737485a664696765" +
			"7374a3c3a471a46b696e64a5c3a4c3a472aa6d656469615f74797065a173a473697a65cf0000000130000000a46e616d65a5" +
			"c3a4c3a475a6746f6b656e73cd0a80aa747261696e5f62697473cb4036400000000000af76616c69646174696f6e5f626974" +
			"73cb4037400000000000a462657374c3a46c617374c3a5626c656e64cb403a400000000000")
	if err != nil {
		t.Fatal(err)
	}
	var saved CheckpointSaved
	if err := Unmarshal(older, &saved); err != nil {
		t.Fatal(err)
	}
	if again, err := Marshal(saved); err != nil || !bytes.Equal(again, older) {
		t.Errorf("it encodes to %x, %v", again, err)
	}
	inputs := saved.Inputs()
	if saved.Previous = &saved.Model; !slices.Equal(saved.Inputs(), inputs) {
		t.Errorf("with the checkpoint before it depends on %q, without on %q", saved.Inputs(), inputs)
	}
}

// TestReferencePageIsCurrent keeps docs/reference/events.md equal to what the declarations say. `go test
// ./shared/run/event -update` writes it anew.
func TestReferencePageIsCurrent(t *testing.T) {
	page, err := reference("kinds.go")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "..", "..", "docs", "reference", "events.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, page) {
		t.Errorf("%s is not current: go test ./shared/run/event -update writes it", path)
	}
}
