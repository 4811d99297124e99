package event

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// maxDepth bounds nesting; the decoder recurses.
const maxDepth = 32

var errTruncated = errors.New("msgpack: truncated")

// checkBounds walks the msgpack in b and refuses it when any declared length exceeds the bytes that are left, when it
// nests deeper than maxDepth or when bytes follow the value. The decoder allocates what a length claims, so five bytes
// can otherwise kill the process.
func checkBounds(b []byte) error {
	rest, err := skip(b, 0)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("msgpack: %d bytes follow the value", len(rest))
	}
	return nil
}

// skip returns what follows the first value in b.
func skip(b []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("msgpack: nested deeper than %d", maxDepth)
	}
	if len(b) == 0 {
		return nil, errTruncated
	}
	code, b := b[0], b[1:]
	switch {
	case code <= 0x7f || code >= 0xe0: // fixint
		return b, nil
	case code <= 0x8f: // fixmap
		return skipMany(b, 2*uint64(code&0x0f), depth)
	case code <= 0x9f: // fixarray
		return skipMany(b, uint64(code&0x0f), depth)
	case code <= 0xbf: // fixstr
		return skipBytes(b, uint64(code&0x1f))
	}
	return skipCoded(code, b, depth)
}

// skipCoded handles the types whose first byte is 0xc0 to 0xdf.
func skipCoded(code byte, b []byte, depth int) ([]byte, error) {
	switch code {
	case 0xc0, 0xc2, 0xc3: // nil, false, true
		return b, nil
	case 0xcc, 0xd0:
		return skipBytes(b, 1)
	case 0xcd, 0xd1:
		return skipBytes(b, 2)
	case 0xca, 0xce, 0xd2:
		return skipBytes(b, 4)
	case 0xcb, 0xcf, 0xd3:
		return skipBytes(b, 8)
	case 0xc4, 0xd9:
		return skipSized(b, 1, 0)
	case 0xc5, 0xda:
		return skipSized(b, 2, 0)
	case 0xc6, 0xdb:
		return skipSized(b, 4, 0)
	case 0xdc, 0xdd:
		n, b, err := length(b, 2<<(code&1))
		if err != nil {
			return nil, err
		}
		return skipMany(b, n, depth)
	case 0xde, 0xdf:
		n, b, err := length(b, 2<<(code&1))
		if err != nil {
			return nil, err
		}
		return skipMany(b, 2*n, depth)
	case 0xc7, 0xc8, 0xc9: // extension with a length of 1, 2, 4 bytes, then its type
		return skipSized(b, 1<<(code-0xc7), 1)
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8: // extension of 1, 2, 4, 8, 16 bytes
		return skipBytes(b, 1+1<<(code-0xd4))
	}
	return nil, fmt.Errorf("msgpack: code %#x is not assigned", code)
}

// length reads a big-endian length of the given width in bytes.
func length(b []byte, width int) (uint64, []byte, error) {
	if len(b) < width {
		return 0, nil, errTruncated
	}
	switch width {
	case 1:
		return uint64(b[0]), b[1:], nil
	case 2:
		return uint64(binary.BigEndian.Uint16(b)), b[2:], nil
	default:
		return uint64(binary.BigEndian.Uint32(b)), b[4:], nil
	}
}

func skipSized(b []byte, width int, extra uint64) ([]byte, error) {
	n, b, err := length(b, width)
	if err != nil {
		return nil, err
	}
	return skipBytes(b, n+extra)
}

func skipBytes(b []byte, n uint64) ([]byte, error) {
	if n > uint64(len(b)) {
		return nil, fmt.Errorf("msgpack: %d bytes declared, %d left", n, len(b))
	}
	return b[n:], nil
}

func skipMany(b []byte, n uint64, depth int) ([]byte, error) {
	if n > uint64(len(b)) { // every element takes a byte at least
		return nil, fmt.Errorf("msgpack: %d elements declared, %d bytes left", n, len(b))
	}
	var err error
	for range n {
		if b, err = skip(b, depth+1); err != nil {
			return nil, err
		}
	}
	return b, nil
}
