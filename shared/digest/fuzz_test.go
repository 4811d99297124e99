package digest

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzChecksum: what a file begins with decides the form of its checksum. A checksum is verified as it was written, a
// change of any byte is noticed, and any bytes can be looked at.
func FuzzChecksum(f *testing.F) {
	f.Add([]byte("{\"a\": 1}\n"), 3)
	f.Add([]byte("\x81\xa1a\x01"), 0)
	f.Add([]byte("line\n"), 2)
	f.Add([]byte{0xde, 0, 16}, 1)
	f.Add([]byte{0xde}, 1)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		_ = VerifyChecksum(b)
		if len(b) == 0 || b[0] == 0xdf {
			return // no map that programs write
		}
		whole := AppendChecksum(b)
		if err := VerifyChecksum(whole); err != nil {
			t.Fatalf("%q becomes %q: %v", b, whole, err)
		}
		if len(whole) > len(b)+ChecksumSize {
			t.Errorf("a checksum of %d bytes", len(whole)-len(b))
		}
		changed := bytes.Clone(whole)
		i := int(uint(at) % uint(len(whole)-1)) // the last byte may be a line feed
		changed[i] ^= 1
		if err := VerifyChecksum(changed); err == nil && i > 0 && i < len(whole)-ChecksumSize {
			t.Errorf("byte %d of %q changed to %q", i, whole, changed)
		} else if err != nil && !errors.Is(err, ErrChecksum) {
			t.Error(err)
		}
	})
}
