// Package artifact keeps immutable bytes on disk and names them by the digest
// of their content. It writes to a temporary name, syncs, renames and only then
// hands out a reference; it checks the digest when bytes are read back. It does
// not know what the bytes mean, and it never changes or deletes an artifact.
package artifact

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/blake3"
)

// Ref names an artifact. Digest alone identifies the bytes; the other fields
// say what they are and travel with every event that mentions them.
type Ref struct {
	Digest    string `msgpack:"digest" json:"digest" usage:"blake3-256 of the bytes, lowercase hex"`
	Kind      string `msgpack:"kind" json:"kind" usage:"what they are, e.g. checkpoint"`
	MediaType string `msgpack:"media_type" json:"media_type" usage:"e.g. application/json"`
	Size      int64  `msgpack:"size" json:"size" usage:"bytes"`
	Name      string `msgpack:"name" json:"name" usage:"file name for people; a plain one, without path separators"`
}

// IsZero reports whether r names nothing.
func (r Ref) IsZero() bool { return r.Digest == "" }

// String is what log lines and error messages show.
func (r Ref) String() string {
	return fmt.Sprintf("%s %s (%s)", r.Kind, r.Name, Short(r.Digest))
}

// Short abbreviates a digest for people: its first twelve hex digits.
func Short(digest string) string {
	if len(digest) > 12 {
		return digest[:12]
	}
	return digest
}

// ValidDigest reports whether s is 64 lowercase hex digits, and so safe to use
// as a file name.
func ValidDigest(s string) bool {
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

// maxName is what every file system takes, in bytes.
const maxName = 200

// ValidName reports whether s is a plain file name that is safe to create in
// any folder and to show: no separators, no hidden file, nothing unprintable.
func ValidName(s string) bool {
	return s != "" && len(s) <= maxName && s[0] != '.' && utf8.ValidString(s) &&
		strings.IndexFunc(s, func(r rune) bool { return r == '/' || r == '\\' || !unicode.IsPrint(r) }) < 0
}

// DigestBytes is the digest of b.
func DigestBytes(b []byte) string {
	sum := blake3.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Regular refuses what is no regular file, before anybody opens it: a pipe gives its bytes once, and may never give any.
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

// DigestFile reads the regular file at path once and returns its digest and size.
func DigestFile(path string) (digest string, size int64, err error) {
	if err := Regular(path); err != nil {
		return "", 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	digest, size, err = Digest(f)
	if err != nil {
		return "", 0, fmt.Errorf("reading %s: %w", path, err)
	}
	return digest, size, nil
}

// Digest reads r to its end and returns the digest and the number of its bytes.
func Digest(r io.Reader) (digest string, size int64, err error) {
	h := blake3.New()
	size, err = io.CopyBuffer(h, r, make([]byte, 1<<20))
	return hex.EncodeToString(h.Sum(nil)), size, err
}
