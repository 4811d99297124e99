// Package digest names bytes by their content: a digest is the BLAKE3-256 hash of the bytes, in lowercase hex. All of
// shared/ may import the package; it does not know what the bytes are.
package digest

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/zeebo/blake3"
)

// Bytes returns the digest of b.
func Bytes(b []byte) string {
	sum := blake3.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Reader reads r to its end and returns the digest and the number of its bytes.
func Reader(r io.Reader) (digest string, size int64, err error) {
	h := blake3.New()
	size, err = io.CopyBuffer(h, r, make([]byte, 1<<20))
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// File reads the regular file at path once and returns its digest and its size in bytes.
func File(path string) (digest string, size int64, err error) {
	if err := Regular(path); err != nil {
		return "", 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	digest, size, err = Reader(f)
	if err != nil {
		return "", 0, fmt.Errorf("reading %s: %w", path, err)
	}
	return digest, size, nil
}

// Regular refuses what is no regular file, before anybody opens it: a pipe gives its bytes once, and may never give
// any.
func Regular(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Mode().IsRegular() {
		return err
	}
	what := "a device"
	switch mode := info.Mode(); {
	case mode.IsDir():
		return fmt.Errorf("%s is a folder, not a regular file", path)
	case mode&os.ModeNamedPipe != 0:
		what = "a pipe"
	case mode&os.ModeSocket != 0:
		what = "a socket"
	}
	return fmt.Errorf("%s is %s, not a regular file: write what comes from it to a file, and give that", path, what)
}

// Short abbreviates a digest for people: its first twelve hex digits.
func Short(digest string) string {
	if len(digest) > 12 {
		return digest[:12]
	}
	return digest
}

// Valid reports whether s is 64 lowercase hex digits, and so safe to use as a file name.
func Valid(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
