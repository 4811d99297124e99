package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The encodings of the format.
const (
	encodingPlain       = 0
	encodingPlainDict   = 2
	encodingRLE         = 3
	encodingDelta       = 5
	encodingDeltaLength = 6
	encodingDeltaBytes  = 7
	encodingDict        = 8
	encodingSplit       = 9
)

var encodingNames = map[int64]string{
	encodingPlain: "PLAIN", encodingPlainDict: "PLAIN_DICTIONARY", encodingRLE: "RLE", 4: "BIT_PACKED",
	encodingDelta:       "DELTA_BINARY_PACKED",
	encodingDeltaLength: "DELTA_LENGTH_BYTE_ARRAY", encodingDeltaBytes: "DELTA_BYTE_ARRAY",
	encodingDict: "RLE_DICTIONARY", encodingSplit: "BYTE_STREAM_SPLIT",
}

var errValues = errors.New("a page holds fewer values than it claims: the file is corrupt")

// Values are values of one column, in the field of its type: Bytes for BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY and INT96,
// Floats for FLOAT and DOUBLE, Ints for BOOLEAN (0 or 1), INT32 and INT64.
type Values struct {
	Bytes  [][]byte
	Ints   []int64
	Floats []float64
}

func (v *Values) reset() { v.Bytes, v.Ints, v.Floats = v.Bytes[:0], v.Ints[:0], v.Floats[:0] }

// Len is the number of values.
func (v *Values) Len() int { return len(v.Bytes) + len(v.Ints) + len(v.Floats) }

// decoder decodes the values of a page.
type decoder interface {
	// read appends n values to v.
	read(v *Values, n int) error
}

// newDecoder chooses the decoder of a page with the given encoding.
func (c *Chunk) newDecoder(encoding int64, data []byte) (decoder, error) {
	kind := c.column.Type
	switch {
	case len(data) == 0: // all values are null, or the page is too short
		return c.newPlain(nil)
	case encoding == encodingDict || encoding == encodingPlainDict:
		if data[0] > 32 {
			return nil, fmt.Errorf("dictionary indices of %d bits: the file is corrupt", data[0])
		}
		p := &indexed{dictionary: c.dictionary, indices: hybrid{data: data[1:], width: uint(data[0])}}
		if p.dictionary == nil { // a column of nulls has no dictionary
			p.dictionary = new(Values)
		}
		return p, nil
	case encoding == encodingPlain:
		return c.newPlain(data)
	case encoding == encodingRLE && kind == Boolean:
		if len(data) < 4 {
			return nil, errValues
		}
		return &truths{hybrid{data: data[4:], width: 1}}, nil
	case encoding == encodingDelta && (kind == Int32 || kind == Int64):
		d, err := newDelta(data)
		return &deltaInts{d, kind}, err
	case encoding == encodingDeltaLength && kind == ByteArray:
		return newDeltaLength(data)
	case encoding == encodingDeltaBytes && kind == ByteArray:
		return newDeltaBytes(data, &c.last, c.file.options.MaxValue, -1)
	case encoding == encodingDeltaBytes && kind == FixedLenByteArray:
		return newDeltaBytes(data, &c.last, c.file.options.MaxValue, c.column.width)
	case encoding == encodingSplit && kind != ByteArray && kind != Boolean && kind != Int96:
		return newSplit(kind, c.column.width, data)
	}
	name := encodingNames[encoding]
	if name == "" {
		name = fmt.Sprint(encoding)
	}
	return nil, fmt.Errorf("encoding %s of %v values is not supported", name, kind)
}

// newPlain returns the decoder of values one after the other.
func (c *Chunk) newPlain(data []byte) (decoder, error) {
	switch kind := c.column.Type; kind {
	case ByteArray:
		return &plainBytes{data}, nil
	case FixedLenByteArray, Int96:
		return &plainFixed{data, c.column.width}, nil
	case Boolean:
		return &truths{hybrid{bits: data, width: 1, run: uint64(len(data)) * 8}}, nil
	default:
		return &plainNumbers{kind, data}, nil
	}
}

// plainFixed are byte arrays of one length.
type plainFixed struct {
	data  []byte
	width int
}

func (p *plainFixed) read(v *Values, n int) error {
	for range n {
		if len(p.data) < p.width {
			return errValues
		}
		v.Bytes = append(v.Bytes, p.data[:p.width:p.width])
		p.data = p.data[p.width:]
	}
	return nil
}

// plainBytes are byte arrays, each behind its length in 32 bits.
type plainBytes struct{ data []byte }

func (p *plainBytes) read(v *Values, n int) error {
	for range n {
		if len(p.data) < 4 {
			return errValues
		}
		length := int64(binary.LittleEndian.Uint32(p.data))
		if length > int64(len(p.data)-4) {
			return fmt.Errorf("a value of %d bytes where the page has only %d left: the file is corrupt", length,
				len(p.data)-4)
		}
		end := 4 + int(length)
		v.Bytes = append(v.Bytes, p.data[4:end:end])
		p.data = p.data[end:]
	}
	return nil
}

// plainNumbers are numbers in little-endian order.
type plainNumbers struct {
	kind Type
	data []byte
}

func (p *plainNumbers) read(v *Values, n int) error {
	for range n {
		width := 4
		if p.kind == Int64 || p.kind == Double {
			width = 8
		}
		if len(p.data) < width {
			return errValues
		}
		v.number(p.kind, load64(p.data[:width], 0))
		p.data = p.data[width:]
	}
	return nil
}

// number appends the number that the bits stand for.
func (v *Values) number(kind Type, b uint64) {
	switch kind {
	case Int32:
		v.Ints = append(v.Ints, int64(int32(b)))
	case Int64:
		v.Ints = append(v.Ints, int64(b))
	case Float:
		v.Floats = append(v.Floats, float64(math.Float32frombits(uint32(b))))
	case Double:
		v.Floats = append(v.Floats, math.Float64frombits(b))
	}
}

// truths are booleans, a bit each.
type truths struct{ bits hybrid }

func (p *truths) read(v *Values, n int) error {
	var bit [1]uint32
	for range n {
		if err := p.bits.read(bit[:]); err != nil {
			return err
		}
		v.Ints = append(v.Ints, int64(bit[0]))
	}
	return nil
}

// indexed are values of a dictionary.
type indexed struct {
	dictionary *Values
	indices    hybrid
	scratch    []uint32
}

func (p *indexed) read(v *Values, n int) error {
	p.scratch = append(p.scratch[:0], make([]uint32, n)...)
	if err := p.indices.read(p.scratch); err != nil {
		return err
	}
	d, size := p.dictionary, uint32(p.dictionary.Len())
	for _, i := range p.scratch {
		if i >= size {
			return fmt.Errorf("index %d into a dictionary of %d values: the file is corrupt", i, size)
		}
		switch {
		case d.Bytes != nil:
			v.Bytes = append(v.Bytes, d.Bytes[i])
		case d.Ints != nil:
			v.Ints = append(v.Ints, d.Ints[i])
		default:
			v.Floats = append(v.Floats, d.Floats[i])
		}
	}
	return nil
}

// deltaInts are delta-encoded integers.
type deltaInts struct {
	*delta
	kind Type
}

func (p *deltaInts) read(v *Values, n int) error {
	for range n {
		i, err := p.next()
		if err != nil {
			return err
		}
		if p.kind == Int32 {
			i = int64(int32(i))
		}
		v.Ints = append(v.Ints, i)
	}
	return nil
}

// deltaLength are byte arrays one after the other, behind the list of their lengths.
type deltaLength struct {
	lengths *delta
	data    []byte
}

func newDeltaLength(data []byte) (*deltaLength, error) {
	rest, _, err := skipDelta(data)
	if err != nil {
		return nil, err
	}
	lengths, err := newDelta(data)
	return &deltaLength{lengths, rest}, err
}

func (p *deltaLength) next() ([]byte, error) {
	length, err := p.lengths.next()
	if err != nil {
		return nil, err
	}
	if length < 0 || length > int64(len(p.data)) {
		return nil, fmt.Errorf("a value of %d bytes where the page has only %d left: the file is corrupt", length,
			len(p.data))
	}
	value := p.data[:length:length]
	p.data = p.data[length:]
	return value, nil
}

func (p *deltaLength) read(v *Values, n int) error {
	for range n {
		value, err := p.next()
		if err != nil {
			return err
		}
		v.Bytes = append(v.Bytes, value)
	}
	return nil
}

// deltaBytes are byte arrays that share a prefix with the array before. Some writers let the first array of a page
// share a prefix with the last array of the page before (PARQUET-246), which last is.
type deltaBytes struct {
	prefixes *delta
	suffixes *deltaLength
	last     *[]byte
	longest  int
	width    int // of every value, or -1
}

func newDeltaBytes(data []byte, last *[]byte, longest, width int) (*deltaBytes, error) {
	rest, _, err := skipDelta(data)
	if err != nil {
		return nil, err
	}
	prefixes, err := newDelta(data)
	if err != nil {
		return nil, err
	}
	suffixes, err := newDeltaLength(rest)
	return &deltaBytes{prefixes: prefixes, suffixes: suffixes, last: last, longest: longest, width: width}, err
}

func (p *deltaBytes) read(v *Values, n int) error {
	for range n {
		prefix, err := p.prefixes.next()
		if err != nil {
			return err
		}
		suffix, err := p.suffixes.next()
		if err != nil {
			return err
		}
		if prefix < 0 || prefix > int64(len(*p.last)) {
			return fmt.Errorf("a value shares %d bytes with one of %d: the file is corrupt", prefix, len(*p.last))
		}
		length := int(prefix) + len(suffix)
		switch {
		case length > p.longest:
			return fmt.Errorf("a value of %d bytes, more than the limit of %d", length, p.longest)
		case p.width >= 0 && length != p.width:
			return fmt.Errorf("a value of %d bytes where all have %d: the file is corrupt", length, p.width)
		}
		value := make([]byte, 0, length)
		value = append(append(value, (*p.last)[:prefix]...), suffix...)
		v.Bytes = append(v.Bytes, value)
		*p.last = value
	}
	return nil
}

// split are values whose first bytes come first, then all second bytes, and so on.
type split struct {
	kind  Type
	width int
	data  []byte
	count int
	at    int
}

func newSplit(kind Type, width int, data []byte) (*split, error) {
	switch kind {
	case Int32, Float:
		width = 4
	case Int64, Double:
		width = 8
	}
	if width == 0 || len(data)%width != 0 {
		return nil, errValues
	}
	return &split{kind: kind, width: width, data: data, count: len(data) / width}, nil
}

func (p *split) read(v *Values, n int) error {
	for range n {
		if p.at >= p.count {
			return errValues
		}
		if p.kind == FixedLenByteArray {
			value := make([]byte, p.width)
			for k := range value {
				value[k] = p.data[k*p.count+p.at]
			}
			v.Bytes = append(v.Bytes, value)
		} else {
			var b uint64
			for k := range p.width {
				b |= uint64(p.data[k*p.count+p.at]) << (8 * k)
			}
			v.number(p.kind, b)
		}
		p.at++
	}
	return nil
}
