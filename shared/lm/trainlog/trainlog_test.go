package trainlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The log of an earlier version is read as it was written.
func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	log := `{"event":"step","step":10,"tokens":640,"train_bpc":5.5,"lr":0.003,"gamma":0.9,"grad_norm":1.25,` +
		`"flipped":7,"sequence":32}
{"event":"of a later version","step":"ten"}
{"event":"checkpoint","step":10,"tokens":640,"train_bpc":5.75,"val_bpc":5.25,"best":true,"model":"00ff"}
{"event":"checkpoint","step":12,"tokens":768,"train_bpc":5.5,"val_bpc":null,"best":false,"model":"01ff"}
{"event":"step","step":20,"tokens":1280,"seconds":2.5,"train_bpc":5.5}
{"event":"validation","step":20,"tokens":1280,"seconds":2.5,"train_bpc":5.5,"val_bpc":5.25}
`
	if err := os.WriteFile(path, []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	bits := 5.25
	want := []Line{
		Step{EventStep, 10, 640, 5.5, 0.003, 0.9, 1.25, 7, 32, 0},
		Checkpoint{EventCheckpoint, 10, 640, 5.75, &bits, true, "00ff", 0},
		Checkpoint{EventCheckpoint, 12, 768, 5.5, nil, false, "01ff", 0},
		Step{Event: EventStep, Step: 20, Tokens: 1280, TrainBPC: 5.5, Seconds: 2.5},
		Checkpoint{Event: "validation", Step: 20, Tokens: 1280, TrainBPC: 5.5, ValBPC: &bits, Seconds: 2.5},
	}
	if got, err := Read(path); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v (%v), want %+v", got, err, want)
	}
}

// A line that is not of the log is refused with its number.
func TestReadNamesTheLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	for _, bad := range []string{`{"event":"step","step":`, `{"event":"step","step":"two"}`, `[]`,
		strings.Repeat("x", 1<<17)} {
		if err := os.WriteFile(path, []byte(`{"event":"step","step":1}`+"\n"+bad+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		lines, err := Read(path)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%.40s: %v, %v", bad, lines, err)
		}
		if len(bad) < 100 && !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v does not name line 2", bad, err)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent log: %v", err)
	}
}
