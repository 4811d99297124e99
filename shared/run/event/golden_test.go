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
	var want strings.Builder
	for _, kind := range Kinds() {
		b, err := Marshal(filled(kind))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&want, "%s %x\n", kind.Kind(), b)
	}
	fmt.Fprintf(&want, "envelope %x\n", encoded(t))
	if *update {
		if err := os.WriteFile(path, []byte(want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kept, made := strings.Split(string(golden), "\n"), strings.Split(want.String(), "\n")
	for _, line := range kept {
		if !slices.Contains(made, line) {
			t.Errorf("these bytes have changed:\n%s", line)
		}
	}
	for _, line := range made {
		if !slices.Contains(kept, line) {
			t.Errorf("these bytes are new (go test ./shared/run/event -update keeps those of a new kind):\n%s", line)
		}
	}
	for line := range strings.Lines(string(golden)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := hex.DecodeString(text)
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
