package main

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"testing"

	"bitnet1/shared/run/event"
)

// Runs can be looked at where one may not write: no file is created, not even for a moment.
func TestRunsOnlyReads(t *testing.T) {
	k := newKept(t)
	for _, run := range []string{"a", "b"} {
		k.begin(run, `{"steps":600}`)
		k.found(run, "", event.CheckpointSaved{Step: 10, ValidationBits: 5})
	}
	before := k.listing()
	for _, args := range [][]string{{}, {"--json"}, {"a"}, {"--diff", "a", "b"}} {
		k.must("pipeline", append([]string{"runs"}, args...)...)
		if after := k.listing(); !maps.Equal(after, before) {
			t.Fatalf("runs %v changed the data directory from\n%v to\n%v", args, before, after)
		}
	}
}

// listing is every file and folder of the data directory, with the time of its last change. The time of a folder is
// that of the last file that came or went.
func (k *kept) listing() map[string]string {
	k.t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(k.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			found[path] = fmt.Sprint(info.ModTime(), info.Mode(), info.Size())
		}
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
	return found
}
