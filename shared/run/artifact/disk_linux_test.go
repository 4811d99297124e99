package artifact

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// limited mounts a small file system for the length of the test.
func limited(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small file system cannot be mounted here (it needs root): %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := limited(t, "256k")
	store, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	small := put(t, store, "small", []byte("small"))
	_, err = write(store, "large", make([]byte, 1<<20))
	wantError(t, err, "large", ErrFull.Error())
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the cause is lost: %v", err)
	}
	if found := files(t, dir); len(found) != 1 {
		t.Errorf("after a failed write: %v", found)
	}
	if _, err := store.Path(small); err != nil {
		t.Error(err)
	}
	record := filepath.Join(dir, "record")
	if err := WriteFile(record, []byte("old")); err != nil {
		t.Fatal(err)
	}
	err = WriteFile(record, make([]byte, 1<<20))
	wantError(t, err, "the disk is full")
	if b, err := os.ReadFile(record); err != nil || string(b) != "old" {
		t.Errorf("a failed write changed the file: %q (%v)", b, err)
	}
	put(t, store, "again", []byte("there is room for this"))
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := limited(t, "256k")
	store, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ref := put(t, store, "x", []byte("x"))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot remount: %v", err)
	}
	_, err = Open(dir)
	wantError(t, err, dir, ErrDirectory.Error())
	_, err = store.Create("test", "", "y")
	wantError(t, err, "read-only", ErrReadOnly.Error())
	if _, err := store.Path(ref); err != nil {
		t.Errorf("reading needs no writing: %v", err)
	}
	_, err = OpenFolder(filepath.Join(dir, "out"))
	wantError(t, err, "output directory", ErrReadOnly.Error())
	err = WriteFile(filepath.Join(dir, "record"), nil)
	wantError(t, err, "read-only")
}
