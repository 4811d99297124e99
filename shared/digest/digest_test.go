package digest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Digests name files for good. The first value is the one that BLAKE3's own test vectors have for no bytes.
func TestDigestsAreFrozen(t *testing.T) {
	for content, want := range map[string]string{
		"":     "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
		"text": "831c6831fdc9a309a4c66cc3cb2fa3740a100da8b86d6fe86e9ba40deb50aa19",
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		file, size, err := File(path)
		if err != nil || size != int64(len(content)) || file != want || Bytes([]byte(content)) != want {
			t.Errorf("%q: file %s of %d bytes (%v), bytes %s, want %s", content, file, size, err,
				Bytes([]byte(content)), want)
		}
		if Short(want) != want[:12] || Short("abc") != "abc" || !Valid(want) {
			t.Errorf("%s: short %s, valid %t", want, Short(want), Valid(want))
		}
	}
	for _, s := range []string{"", "0", strings.Repeat("A", 64), strings.Repeat("0", 63) + "/", strings.Repeat("g", 64),
		strings.Repeat("0", 65)} {
		if Valid(s) {
			t.Errorf("%q counts as a digest", s)
		}
	}
}

func TestWhatIsNoRegularFileIsRefused(t *testing.T) {
	folder := t.TempDir()
	for path, want := range map[string]string{folder: "is a folder", "/dev/null": "is a device",
		filepath.Join(folder, "none"): "no such file"} {
		if _, _, err := File(path); err == nil || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: error %v, want %q in it", path, err, want)
		}
	}
}
