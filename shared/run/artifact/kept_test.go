package artifact

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/run/vfs"
)

func keep(t *testing.T, dir, name, content string) string {
	t.Helper()
	_, err := Keep(vfs.OS, dir, name, func(w io.Writer) error {
		_, err := fmt.Fprint(w, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	path, err := Kept(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != content {
		t.Fatalf("kept is %q (%v), want %q", b, err, content)
	}
	return path
}

func TestTheFileThatWasKeptLastIsFound(t *testing.T) {
	dir := t.TempDir()
	if _, err := Kept(dir, "state.bin"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state.bin"), []byte("of an older version"), 0o644); err != nil {
		t.Fatal(err)
	}
	if path, err := Kept(dir, "state.bin"); err != nil || filepath.Base(path) != "state.bin" {
		t.Errorf("of an older version: %s, %v", path, err)
	}
	keep(t, dir, "state.bin", "one")
	keep(t, dir, "state.bin", "one")
	keep(t, dir, "other.bin", "other")
	path := keep(t, dir, "state.bin", "two")
	if found := files(t, dir); len(found) != 2 {
		t.Errorf("there are %v", found)
	}
	b := []byte("twp")
	if err := errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, b, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := Kept(dir, "state.bin"); !errors.Is(err, ErrDamaged) {
		t.Errorf("of a damaged file: %v", err)
	}
	if err := Forget(vfs.OS, dir, "state.bin"); err != nil {
		t.Fatal(err)
	}
	if found := files(t, dir); len(found) != 1 || VerifyKept(found[0]) != nil {
		t.Errorf("there are %v", found)
	}
}

// A power cut can leave the file before, too. Where the last one is damaged, the one before counts.
func TestOfTwoKeptFilesTheSoundOneCounts(t *testing.T) {
	dir := t.TempDir()
	first := keep(t, dir, "state.bin", "one")
	b, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	second := keep(t, dir, "state.bin", "two")
	if err := os.WriteFile(first, b, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(second, 0o644), os.WriteFile(second, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if path, err := Kept(dir, "state.bin"); err != nil || path != first {
		t.Errorf("%s, %v", path, err)
	}
}
