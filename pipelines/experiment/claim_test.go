package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The files of an experiment lie in its folder, whatever its name.
func TestANameIsNoPath(t *testing.T) {
	data := t.TempDir()
	for _, name := range []string{"../x", "a/b", "/x", "..", ".", ""} {
		if claim(filepath.Join(data, "experiments", name), name, question{}, true) == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
	if left, err := os.ReadDir(data); err != nil || len(left) > 0 {
		t.Errorf("files were made: %v %v", left, err)
	}
	if err := claim(filepath.Join(data, "a name"), "a name", question{}, false); err != nil {
		t.Error(err)
	}
}
