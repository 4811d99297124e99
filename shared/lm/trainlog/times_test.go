package trainlog

import (
	"errors"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A line counts for all steps since the one before it.
func TestSeconds(t *testing.T) {
	path := filepath.Join(t.TempDir(), TimesFileName)
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"step":10,"seconds":0.5,"tokens_per_second":8}
{"step":12,"seconds":2,"tokens_per_second":2}
`)
	if got, err := Seconds(path); err != nil || math.Abs(got-9) > 1e-12 {
		t.Errorf("%v seconds, %v", got, err)
	}
	if got, err := Elapsed(path); err != nil || !maps.Equal(got, map[int]float64{10: 5, 12: 9}) {
		t.Errorf("%v, %v", got, err)
	}
	write("{\"step\":10,\"seconds\":0.5}\n{\"step\":")
	if got, err := Seconds(path); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("half a line: %v, %v", got, err)
	}
	if _, err := Seconds(path + ".absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
}
