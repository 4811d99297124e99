package corpus

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"bitnet1/shared/digest"
)

func TestCopyTask(t *testing.T) {
	task, err := ParseCopyTask("copy:symbols=9,length=5,steps=2", 7)
	if err != nil {
		t.Fatal(err)
	}
	if want := (CopyTask{Symbols: 9, Length: 5, Documents: 64, Seed: 7}); task != want {
		t.Fatalf("got %+v, want %+v", task, want)
	}
	path, err := task.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[rune]int{}
	documents := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		var d struct{ ID, Text string }
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatal(err)
		}
		if len(d.Text) != 10 || d.Text[:5] != d.Text[5:] {
			t.Errorf("%s is %q", d.ID, d.Text)
		}
		documents[d.Text] = true
		for _, r := range d.Text {
			seen[r]++
		}
	}
	if len(documents) < 60 || len(seen) != 9 {
		t.Errorf("%d different documents of %d symbols", len(documents), len(seen))
	}
}

// The bytes are the same on every machine, and different for different seeds.
func TestCopyTaskIsFrozen(t *testing.T) {
	short := func(seed uint64) string {
		path, err := CopyTask{Symbols: 64, Length: 24, Documents: 100, Seed: seed}.Write(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		d, _, err := digest.File(path)
		if err != nil {
			t.Fatal(err)
		}
		return digest.Short(d)
	}
	if got, want := short(42), "36abd50f1403"; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	if short(42) == short(43) {
		t.Error("two seeds give the same documents")
	}
}

func TestCopyTaskRefusesMistakes(t *testing.T) {
	for source, want := range map[string]string{
		"copy:symbol=3":       `unknown key "symbol"`,
		"copy:symbols=x":      "want a number",
		"copy:length=0":       "want a number",
		"copy:symbols=95":     "symbols-94",
		"copy:steps=99999999": "want a number",
	} {
		if _, err := ParseCopyTask(source, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", source, err, want)
		}
	}
}
