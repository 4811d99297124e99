package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"time"
)

// Logical is the meaning of the values of a column.
type Logical struct {
	Kind  LogicalKind
	Scale int  // of a decimal: digits behind the point
	Unit  Unit // of a time or timestamp
	UTC   bool // a time or timestamp is in UTC; otherwise it has no zone
}

// LogicalKind is a logical type without its parameters.
type LogicalKind int8

// The logical types of the format. Those of groups (lists, maps) are of the schema's nodes, the others of columns.
const (
	None LogicalKind = iota // the values are those of the physical type
	String
	Map
	List
	Enum
	Decimal
	Date
	Time
	Timestamp
	Interval
	Unsigned // an unsigned integer; signed ones are None
	Null     // all values are null, whatever the physical type
	JSON
	BSON
	UUID
	Float16
	Variant
	Geometry
	Geography
	unknownLogical
)

var logicalNames = [...]string{
	"", "STRING", "MAP", "LIST", "ENUM", "DECIMAL", "DATE", "TIME", "TIMESTAMP", "INTERVAL", "unsigned", "NULL", "JSON",
	"BSON", "UUID",
	"FLOAT16", "VARIANT", "GEOMETRY", "GEOGRAPHY", "of an unknown logical type",
}

// Unit is the unit of a time or timestamp, in nanoseconds.
type Unit int64

// The units of the format.
const (
	Millis Unit = 1e6
	Micros Unit = 1e3
	Nanos  Unit = 1
)

// maxDecimal is the longest decimal, in bytes. It has 2400 digits, more than anybody writes.
const maxDecimal = 1000

// unionKinds maps the fields of the format's union LogicalType.
var unionKinds = map[int16]LogicalKind{
	1: String, 2: Map, 3: List, 4: Enum, 5: Decimal, 6: Date, 7: Time, 8: Timestamp, 10: None, 11: Null, 12: JSON,
	13: BSON, 14: UUID,
	15: Float16, 16: Variant, 17: Geometry, 18: Geography,
}

// convertedTypes maps the older enumeration ConvertedType, which is all that many files have.
var convertedTypes = map[int64]Logical{
	0: {Kind: String}, 1: {Kind: Map}, 2: {Kind: Map}, 3: {Kind: List}, 4: {Kind: Enum}, 5: {Kind: Decimal},
	6: {Kind: Date},
	7: {Kind: Time, Unit: Millis, UTC: true}, 8: {Kind: Time, Unit: Micros, UTC: true},
	9: {Kind: Timestamp, Unit: Millis, UTC: true}, 10: {Kind: Timestamp, Unit: Micros, UTC: true},
	11: {Kind: Unsigned}, 12: {Kind: Unsigned}, 13: {Kind: Unsigned}, 14: {Kind: Unsigned},
	19: {Kind: JSON}, 20: {Kind: BSON}, 21: {Kind: Interval},
}

// readLogical reads the union LogicalType.
func readLogical(t *thrift) Logical {
	var l Logical
	t.fields(func(id int16, kind byte) bool {
		k, known := unionKinds[id]
		if !known {
			k = unknownLogical
		}
		l.Kind = k
		if kind != typeStruct {
			return false
		}
		t.fields(func(id int16, kind byte) bool { return l.readParameter(t, id, kind) })
		return true
	})
	return l
}

// readParameter reads a field of one of the structures in LogicalType.
func (l *Logical) readParameter(t *thrift, id int16, kind byte) bool {
	timed := l.Kind == Time || l.Kind == Timestamp
	switch {
	case l.Kind == Decimal && id == 1 && kind == typeI32:
		l.Scale = int(t.int())
		return true
	case timed && id == 1:
		l.UTC = kind == typeTrue
	case timed && id == 2 && kind == typeStruct:
		t.fields(func(id int16, _ byte) bool {
			l.Unit = map[int16]Unit{1: Millis, 2: Micros, 3: Nanos}[id]
			return false
		})
		return true
	case l.Kind == None && id == 2 && kind == typeFalse: // an integer that is not signed
		l.Kind = Unsigned
	}
	return false
}

// check reports whether the logical type fits the physical type. Some writers write types that do not fit; the format
// says to ignore them. A decimal without a valid scale is an error, because its values would be wrong.
func (l Logical) check(kind Type, width int) (Logical, error) {
	if kind == Int96 { // writers use INT96 for timestamps alone
		return Logical{Kind: Timestamp, Unit: Nanos}, nil
	}
	bytes := kind == ByteArray || kind == FixedLenByteArray
	fits := true
	switch l.Kind {
	case Decimal:
		if l.Scale < 0 || l.Scale > maxDecimal || kind == FixedLenByteArray && (width == 0 || width > maxDecimal) {
			return l, fmt.Errorf("a decimal of %d bytes with %d digits behind the point: the file is corrupt", width,
				l.Scale)
		}
		fits = bytes || kind == Int32 || kind == Int64
	case String, Enum, JSON, BSON, Geometry, Geography, Variant:
		fits = bytes
	case Date:
		fits = kind == Int32
	case Time:
		fits = l.Unit != 0 && (kind == Int64 || kind == Int32 && l.Unit == Millis)
	case Timestamp:
		fits = l.Unit != 0 && kind == Int64
	case Unsigned:
		fits = kind == Int32 || kind == Int64
	case Interval:
		fits = kind == FixedLenByteArray && width == 12
	case UUID:
		fits = kind == FixedLenByteArray && width == 16
	case Float16:
		fits = kind == FixedLenByteArray && width == 2
	}
	if !fits {
		return Logical{}, nil
	}
	return l, nil
}

// TypeName is the logical and the physical type of the column, for messages.
func (c Column) TypeName() string {
	if c.Logical.Kind == None {
		return c.Type.String()
	}
	return logicalNames[c.Logical.Kind] + " in " + c.Type.String()
}

// Text tells whether the values of the column are texts: strings, or bytes without a logical type.
func (c Column) Text() bool {
	switch c.Logical.Kind {
	case None:
		return c.Type == ByteArray || c.Type == FixedLenByteArray
	case String, Enum, JSON:
		return true
	}
	return false
}

// Binary tells whether the values of the column can neither be compared nor be written as text.
func (c Column) Binary() bool {
	switch c.Logical.Kind {
	case BSON, Variant, Geometry, Geography, unknownLogical:
		return true
	}
	return false
}

// Float returns value i as a floating-point number, and the width of the column's numbers in bits: 0 if they are no
// floating-point numbers.
func (c Column) Float(v *Values, i int) (number float64, bits int) {
	switch {
	case c.Type == Float:
		return v.Floats[i], 32
	case c.Type == Double:
		return v.Floats[i], 64
	case c.Logical.Kind == Float16:
		return float16(binary.LittleEndian.Uint16(v.Bytes[i])), 16
	}
	return 0, 0
}

// float16 is the value of an IEEE 754 float16.
func float16(h uint16) float64 {
	sign := 1 - 2*float64(h>>15)
	exponent, fraction := int(h>>10&31), float64(h&1023)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		return sign * math.Inf(1)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

// Moment returns value i of dates, times and timestamps, in UTC. A time of day is on January 1, 1970. ok is false for
// columns of other types.
func (c Column) Moment(v *Values, i int) (time.Time, bool) {
	switch {
	case c.Type == Int96:
		b := v.Bytes[i]
		days := int64(binary.LittleEndian.Uint32(b[8:])) - 2440588 // of the Julian calendar's days, the first of 1970
		return time.Unix(days*86400, int64(binary.LittleEndian.Uint64(b))).UTC(), true
	case c.Logical.Kind == Date:
		return time.Unix(v.Ints[i]*86400, 0).UTC(), true
	case c.Logical.Kind == Time || c.Logical.Kind == Timestamp:
		perSecond := int64(time.Second) / int64(c.Logical.Unit)
		n := v.Ints[i]
		return time.Unix(n/perSecond, n%perSecond*int64(c.Logical.Unit)).UTC(), true
	}
	return time.Time{}, false
}

// AppendText appends value i as text: numbers in decimal digits, decimals with all digits of their scale, true and
// false, dates and times of ISO 8601, UUIDs with hyphens.
func (c Column) AppendText(dst []byte, v *Values, i int) ([]byte, error) {
	if t, ok := c.Moment(v, i); ok {
		return t.AppendFormat(dst, c.layout()), nil
	}
	if f, bits := c.Float(v, i); bits > 0 {
		return appendFloat(dst, f, max(bits, 32)), nil
	}
	switch c.Logical.Kind {
	case Decimal:
		return c.appendDecimal(dst, v, i)
	case Unsigned:
		n := uint64(v.Ints[i])
		if c.Type == Int32 {
			n = uint64(uint32(n))
		}
		return strconv.AppendUint(dst, n, 10), nil
	case UUID:
		b := v.Bytes[i]
		return fmt.Appendf(dst, "%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
	case Interval:
		b := v.Bytes[i]
		seconds := strconv.FormatFloat(float64(binary.LittleEndian.Uint32(b[8:]))/1000, 'f', -1, 64)
		return fmt.Appendf(dst, "P%dM%dDT%sS", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]),
			seconds), nil
	}
	switch {
	case c.Binary():
		return dst, fmt.Errorf("column %s is %s, which is no text", c.Path, c.TypeName())
	case c.Type == Boolean:
		return strconv.AppendBool(dst, v.Ints[i] != 0), nil
	case c.Type == Int32 || c.Type == Int64:
		return strconv.AppendInt(dst, v.Ints[i], 10), nil
	}
	return append(dst, v.Bytes[i]...), nil
}

// appendFloat appends the shortest digits that identify f, without an exponent unless the number is very large or
// small.
func appendFloat(dst []byte, f float64, bits int) []byte {
	format := byte('g')
	if size := math.Abs(f); size == 0 || size >= 1e-5 && size < 1e16 {
		format = 'f'
	}
	return strconv.AppendFloat(dst, f, format, -1, bits)
}

// layout is how the column's dates and times are written.
func (c Column) layout() string {
	layout := map[LogicalKind]string{Date: time.DateOnly, Time: "15:04:05.999999999"}[c.Logical.Kind]
	if layout == "" {
		layout = "2006-01-02T15:04:05.999999999"
	}
	if c.Logical.UTC {
		layout += "Z"
	}
	return layout
}

// appendDecimal appends a decimal: an integer with a point before its last digits. A byte array holds the integer in
// two's complement and network byte order.
func (c Column) appendDecimal(dst []byte, v *Values, i int) ([]byte, error) {
	var digits []byte
	if c.Type == Int32 || c.Type == Int64 {
		digits = strconv.AppendInt(nil, v.Ints[i], 10)
	} else {
		b := v.Bytes[i]
		if len(b) == 0 || len(b) > maxDecimal {
			return dst, errors.New("column " + c.Path + " holds a decimal of " + strconv.Itoa(len(b)) + " bytes")
		}
		n := new(big.Int).SetBytes(b)
		if b[0]&0x80 != 0 {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		}
		digits = n.Append(nil, 10)
	}
	if digits[0] == '-' {
		dst, digits = append(dst, '-'), digits[1:]
	}
	point := len(digits) - c.Logical.Scale
	if point <= 0 {
		dst = append(dst, '0')
	} else {
		dst = append(dst, digits[:point]...)
	}
	if c.Logical.Scale == 0 {
		return dst, nil
	}
	dst = append(dst, '.')
	for ; point < 0; point++ {
		dst = append(dst, '0')
	}
	return append(dst, digits[point:]...), nil
}
