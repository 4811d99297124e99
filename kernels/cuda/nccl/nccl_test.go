//go:build cuda

package nccl

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// These need neither a GPU nor NCCL. Package cuda tests the calls.

func TestLibraryThatCannotBeLoaded(t *testing.T) {
	for path, want := range map[string]string{
		"libnccl-that-is-not-there.so": "cannot open shared object file",
		"libm.so.6":                    "libm.so.6 has no ncclGetVersion",
		os.DevNull:                     "NCCL cannot be loaded: /dev/null",
	} {
		err := load(path)
		if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "pip install nvidia-nccl-cu12") || !strings.Contains(err.Error(), "BITNET1_NCCL=") {
			t.Errorf("%s gave %v, want %s, and what to do", path, err, want)
		}
	}
}

func TestVersions(t *testing.T) {
	for version, want := range map[int]string{2708: "2.7.8", 21703: "2.17.3", 23203: "2.32.3"} {
		if got := versionText(version); got != want {
			t.Errorf("version %d is %s, want %s", version, got, want)
		}
	}
}

// The library itself, where there is one: its symbols are there, and it does not need a GPU to make an id.
func TestLibrary(t *testing.T) {
	err := Load()
	if errors.Is(err, ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	a, errA := NewID()
	b, errB := NewID()
	if errA != nil || errB != nil || len(a) != 128 || string(a) == string(b) {
		t.Errorf("two ids: %x (%v), %x (%v)", a, errA, b, errB)
	}
	if _, err := InitRank(a[:100], 0, 1); err == nil || !strings.Contains(err.Error(), "an id of 100 bytes, want 128") {
		t.Errorf("half an id gave %v", err)
	}
}
