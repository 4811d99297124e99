package digest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/bits"
)

// Small files that change carry a checksum of their own bytes: SHA-256, which every language's standard library has, in
// hex, of all bytes before it. In a msgpack map and in a JSON object the checksum is the last member, "check"; in other
// text it is the last line. So a file is still what it was to whoever reads it and knows no checksums.

// ErrChecksum is the error of a file whose bytes are not those that were written. Its text is part of a sentence.
var ErrChecksum = errors.New("the file is damaged: its checksum differs")

// ChecksumSize is the most bytes that a checksum adds to a file.
const ChecksumSize = 80

const hexSize = 2 * sha256.Size

// form is how a checksum is written: what stands before its hex digits, and after them.
type form struct{ before, after string }

var (
	msgpackForm = form{"\xa5check\xd9\x40", ""} // a string of 5 bytes, and one of 64
	jsonForm    = form{`,"check":"`, "\"}\n"}
	textForm    = form{"# check ", "\n"}
)

// AppendChecksum returns b, a msgpack map, a JSON object, lines of them or other text that ends with a line feed, with
// its checksum.
func AppendChecksum(b []byte) []byte {
	as := textForm
	switch {
	case len(b) == 0:
	case b[0] == '{':
		as = jsonForm
		b = bytes.TrimRight(b, " \n")
		b = bytes.TrimRight(bytes.TrimSuffix(b, []byte("}")), " \n")
	case b[0] >= 0x80 && b[0] <= 0x8e: // a map of up to 14 members
		as = msgpackForm
		b = append([]byte{b[0] + 1}, b[1:]...)
	case b[0] == 0x8f:
		as = msgpackForm
		b = append([]byte{0xde, 0, 16}, b[1:]...)
	case b[0] == 0xde && len(b) >= 3:
		as = msgpackForm
		b = append(binary.BigEndian.AppendUint16([]byte{0xde}, binary.BigEndian.Uint16(b[1:])+1), b[3:]...)
	}
	sum := sha256.Sum256(b)
	whole := append(bytes.Clone(b), as.before...)
	whole = append(whole, hex.EncodeToString(sum[:])...)
	return append(whole, as.after...)
}

// VerifyChecksum returns ErrChecksum if b has a checksum and it is not that of the bytes before. Files of older
// versions have none.
func VerifyChecksum(b []byte) error {
	_, err := CutChecksum(b)
	return err
}

// HasChecksum reports whether b has a checksum, right or wrong.
func HasChecksum(b []byte) bool {
	content, err := CutChecksum(b)
	return err != nil || len(content) < len(b)
}

// CutChecksum is VerifyChecksum that returns the bytes before the checksum, all of b where there is none. Of text these
// are what was written.
func CutChecksum(b []byte) ([]byte, error) {
	for _, as := range []form{msgpackForm, jsonForm, textForm} {
		at := len(b) - len(as.before) - hexSize - len(as.after)
		if at < 0 {
			continue
		}
		rest := b[at:]
		digits, end := rest[len(as.before):len(as.before)+hexSize], rest[len(as.before)+hexSize:]
		// A flipped bit must not make a checksum into none.
		switch wrong := distance(rest, as.before) + distance(end, as.after); {
		case wrong > 2:
			continue
		case wrong > 0:
			return nil, ErrChecksum
		}
		if sum := sha256.Sum256(b[:at]); hex.EncodeToString(sum[:]) != string(digits) {
			return nil, ErrChecksum
		}
		return b[:at], nil
	}
	return b, nil
}

// distance is the number of bits in which b begins otherwise than want.
func distance(b []byte, want string) (n int) {
	for i := range len(want) {
		n += bits.OnesCount8(b[i] ^ want[i])
	}
	return n
}
