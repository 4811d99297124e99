package artifact

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"bitnet1/shared/digest"
)

// Lengths says what the beginnings of a file that grows are, such as a log that a job may cut back to one of them. It
// is kept in a file beside that file, as JSON with a checksum (digest.AppendChecksum).
type Lengths struct {
	Lengths []Length `json:"lengths"` // the shortest first
}

// Length is the digest of the first Length bytes of a file.
type Length struct {
	Length int64  `json:"length"`
	Digest string `json:"digest"`
}

// LengthsName is the name or path of the Lengths of a file.
func LengthsName(name string) string { return name + ".lengths.json" }

// ReadLengths reads the Lengths of the file at path: none where there are none.
func ReadLengths(path string) (l Lengths, err error) {
	b, err := os.ReadFile(LengthsName(path))
	if errors.Is(err, fs.ErrNotExist) {
		return Lengths{}, nil
	}
	if err == nil {
		err = digest.VerifyChecksum(b)
	}
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		return Lengths{}, fmt.Errorf("%s: %w", LengthsName(path), err)
	}
	return l, nil
}

// VerifyLengths returns ErrDamaged if a file does not begin with the longest of its Lengths.
func VerifyLengths(path string) error {
	l, err := ReadLengths(path)
	if err != nil || len(l.Lengths) == 0 {
		return err
	}
	longest := l.Lengths[len(l.Lengths)-1]
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum, n, err := digest.Reader(io.LimitReader(f, longest.Length))
	if err == nil && (n < longest.Length || sum != longest.Digest) {
		err = fmt.Errorf("%s: %w in its first %d bytes", path, ErrDamaged, longest.Length)
	}
	return err
}
