package overview

import (
	"errors"
	"os"
	"slices"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/journal"
)

// Each command that a run was given is kept once.
func TestKeepCommand(t *testing.T) {
	j := journal.Open(t.TempDir())
	for _, line := range []string{"pipeline run a.yml", "pipeline run --json a.yml", "pipeline run a.yml"} {
		if err := KeepCommand(j, "r", line); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"pipeline run a.yml", "pipeline run --json a.yml"}
	if got, err := Commands(j, "r"); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if err := os.Truncate(CommandsPath(j, "r"), 25); err != nil { // within the second
		t.Fatal(err)
	}
	if got, err := Commands(j, "r"); !errors.Is(err, digest.ErrChecksum) {
		t.Errorf("of a file that is cut off: %q, %v", got, err)
	}
	if got, err := Commands(j, "other"); err != nil || len(got) > 0 {
		t.Errorf("of a run without commands: %q, %v", got, err)
	}
}

// Keys in which all runs agree are not listed, and a key that only one run has is.
func TestDiffering(t *testing.T) {
	all := []map[string]string{{"seed": "1", "train.steps": "5", "preset": "nano"}, {"seed": "2", "preset": "nano"}}
	if got, want := Differing(all), []string{"seed", "train.steps"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
