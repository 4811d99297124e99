package filetype

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzOf: a file of any bytes has a type that is the same whether its bytes or its path is given.
func FuzzOf(f *testing.F) {
	for _, seed := range []string{"PK\x03\x04", "PAR1", "BIT2\x02", "\x80\x02}",
		"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", ""} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "file")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		of, err := OfFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if again := Of(b); again != of {
			t.Errorf("%q is %v, and in a file %v", b, again, of)
		}
	})
}
