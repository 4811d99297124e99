package parquet

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The page types of the format.
const (
	pageData       = 0
	pageIndex      = 1
	pageDictionary = 2
	pageDataV2     = 3
)

// pageHeader is the header of a page. Fields that the type of the page does not have are zero.
type pageHeader struct {
	kind                 int64
	size, packed         int64 // uncompressed and as it lies in the file
	crc                  uint32
	checked              bool // it has a checksum
	values               int64
	encoding             int64
	defEncoding          int64
	repEncoding          int64
	nulls                int64 // version 2
	defLength, repLength int64 // version 2
	plain                bool  // version 2: its values are not compressed
	body                 bool  // the part that belongs to its type is there
}

func readPageHeader(t *thrift) pageHeader {
	h := pageHeader{kind: -1, size: -1, packed: -1}
	t.fields(func(id int16, kind byte) bool {
		switch {
		case id == 1 && kind == typeI32:
			h.kind = t.int()
		case id == 2 && kind == typeI32:
			h.size = t.int()
		case id == 3 && kind == typeI32:
			h.packed = t.int()
		case id == 4 && kind == typeI32:
			h.crc, h.checked = uint32(t.int()), true
		case id == 5 && kind == typeStruct && h.kind == pageData:
			h.body = true
			readDataHeader(t, &h)
		case id == 7 && kind == typeStruct && h.kind == pageDictionary:
			h.body = true
			readDictionaryHeader(t, &h)
		case id == 8 && kind == typeStruct && h.kind == pageDataV2:
			h.body = true
			readDataHeaderV2(t, &h)
		default:
			return false
		}
		return true
	})
	return h
}

func readDataHeader(t *thrift, h *pageHeader) {
	t.fields(func(id int16, kind byte) bool {
		if kind != typeI32 {
			return false
		}
		switch id {
		case 1:
			h.values = t.int()
		case 2:
			h.encoding = t.int()
		case 3:
			h.defEncoding = t.int()
		case 4:
			h.repEncoding = t.int()
		default:
			return false
		}
		return true
	})
}

func readDictionaryHeader(t *thrift, h *pageHeader) {
	t.fields(func(id int16, kind byte) bool {
		switch {
		case id == 1 && kind == typeI32:
			h.values = t.int()
		case id == 2 && kind == typeI32:
			h.encoding = t.int()
		default:
			return false
		}
		return true
	})
}

func readDataHeaderV2(t *thrift, h *pageHeader) {
	t.fields(func(id int16, kind byte) bool {
		switch {
		case id == 1 && kind == typeI32:
			h.values = t.int()
		case id == 2 && kind == typeI32:
			h.nulls = t.int()
		case id == 4 && kind == typeI32:
			h.encoding = t.int()
		case id == 5 && kind == typeI32:
			h.defLength = t.int()
		case id == 6 && kind == typeI32:
			h.repLength = t.int()
		case id == 7:
			h.plain = kind == typeFalse
		default:
			return false
		}
		return true
	})
}

// check compares a header with the bytes that are left in the file and the values that are left in the chunk.
func (h pageHeader) check(bytes, values int64, limit int) error {
	switch {
	case h.size < 0 || h.packed < 0 || h.values < 0:
		return fmt.Errorf("a page of %d bytes, %d in the file, with %d values: the file is corrupt", h.size, h.packed,
			h.values)
	case h.packed > bytes:
		return fmt.Errorf("a page of %d bytes where the column has only %d left: the file is corrupt", h.packed, bytes)
	case h.size > int64(limit) || h.packed > int64(limit):
		return fmt.Errorf("a page of %d bytes, more than the limit of %d: write the file with smaller pages",
			max(h.size, h.packed), limit)
	case h.kind == pageIndex:
		return nil
	case h.kind != pageData && h.kind != pageDataV2 && h.kind != pageDictionary:
		return fmt.Errorf("a page of unknown type %d: the file is corrupt", h.kind)
	case !h.body:
		return errors.New("a page whose header lacks its part: the file is corrupt")
	case h.kind != pageDictionary && h.values > values:
		return fmt.Errorf("a page of %d values where the column has only %d left: the file is corrupt", h.values,
			values)
	case h.kind == pageDataV2 && (h.nulls < 0 || h.nulls > h.values || h.defLength < 0 || h.repLength < 0 ||
		h.defLength > h.packed-h.repLength || h.defLength > h.size-h.repLength):
		return fmt.Errorf("a page with %d nulls among %d values and levels of %d and %d bytes: the file is corrupt",
			h.nulls, h.values, h.repLength, h.defLength)
	}
	return nil
}

// headerStep is the number of bytes that are first read for a header. Most headers are shorter; statistics can make one
// longer.
const (
	headerStep  = 512
	maxHeader   = 16 << 20
	headerGrows = 8 // times longer at each new try
)

// nextPage reads the header and the bytes of the next page. The bytes are in c.packed until the next call.
func (c *Chunk) nextPage() (pageHeader, []byte, error) {
	var h pageHeader
	for step := int64(headerStep); ; step *= headerGrows {
		n := min(step, c.end-c.at)
		if err := c.readPacked(n); err != nil {
			return h, nil, err
		}
		t := &thrift{data: c.packed}
		h = readPageHeader(t)
		if t.err == nil {
			c.at += int64(t.at)
			break
		}
		if !errors.Is(t.err, errShort) || n == c.end-c.at || step >= maxHeader {
			return h, nil, fmt.Errorf("header of a page: %w: the file is corrupt", t.err)
		}
	}
	if err := h.check(c.end-c.at, c.left, c.file.options.MaxPage); err != nil {
		return h, nil, err
	}
	if err := c.readPacked(h.packed); err != nil {
		return h, nil, err
	}
	c.at += h.packed
	if h.checked && crc32.ChecksumIEEE(c.packed) != h.crc {
		return h, nil, errors.New("the checksum of a page differs: the file is corrupt")
	}
	return h, c.packed, nil
}

// readPacked reads the next n bytes of the file into c.packed, without advancing.
func (c *Chunk) readPacked(n int64) error {
	var err error
	if c.packed, err = c.room(c.packed, int(n)); err != nil {
		return err
	}
	got, err := c.file.in.ReadAt(c.packed, c.at)
	if got == len(c.packed) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// room returns b with length n and any content.
func (c *Chunk) room(b []byte, n int) ([]byte, error) {
	if cap(b) >= n {
		return b[:n], nil
	}
	n, size := n, n+n/8
	if err := c.hold(size - cap(b)); err != nil {
		return nil, err
	}
	return make([]byte, n, size), nil
}

// unpack returns the uncompressed values of a page, behind the levels if the page is of version 2.
func (c *Chunk) unpack(h pageHeader, packed []byte) ([]byte, error) {
	levels := int(h.defLength + h.repLength)
	size := int(h.size) - levels
	if err := c.file.did(h.size); err != nil {
		return nil, err
	}
	codec := c.info.codec
	if h.plain || size == 0 && len(packed) == levels {
		codec = codecNone
	}
	old := c.page
	if h.kind == pageDictionary {
		old = nil
	} else if c.column.MaxRep > 0 { // values of the last page may still be in use
		old = nil
		if err := c.hold(-cap(c.page)); err != nil {
			return nil, err
		}
	}
	dst, err := c.room(old, size)
	if err != nil {
		return nil, err
	}
	if h.kind != pageDictionary {
		c.page = dst
	}
	return dst, c.file.decompress(codec, dst, packed[levels:])
}
