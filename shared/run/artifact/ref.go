// Package artifact keeps files that never change, and names each by the digest of its bytes.
//
// A Space is where a job reads and writes artifacts. Store is the Space of a data directory, which many runs share;
// Folder is the Space of a one-shot run, with files under the names that people know. Create returns a Writer, and its
// Commit a Ref, which events carry. Nobody sees an artifact before Commit has synced and renamed it; Path checks the
// digest of the bytes before anybody reads them.
//
// The package also knows which directory is a data directory (its mark), and who uses it. It does not know what the
// bytes of an artifact mean.
package artifact

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"bitnet1/shared/digest"
)

// Ref names an artifact. Digest alone identifies the bytes; the other fields say what they are and travel with every
// event that mentions them.
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
	return fmt.Sprintf("%s %s (%s)", r.Kind, r.Name, digest.Short(r.Digest))
}

// maxName is what every file system takes, in bytes.
const maxName = 200

// ValidName reports whether s is a plain file name that is safe to create in any folder and to show: no separators, no
// hidden file, nothing unprintable.
func ValidName(s string) bool {
	return s != "" && len(s) <= maxName && s[0] != '.' && utf8.ValidString(s) &&
		strings.IndexFunc(s, func(r rune) bool { return r == '/' || r == '\\' || !unicode.IsPrint(r) }) < 0
}
