package parquet

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	arrow "github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

// readTexts gives the values of every column as text, and "-" for a null.
func readTexts(t *testing.T, data []byte) (map[string][]string, map[string]error) {
	t.Helper()
	f, err := Open(bytes.NewReader(data), int64(len(data)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	texts, failed := map[string][]string{}, map[string]error{}
	for i, c := range f.Columns() {
		chunk, err := f.Read(0, i)
		if err != nil {
			t.Fatal(err)
		}
		var b Batch
		for err = chunk.Read(&b); err == nil; err = chunk.Read(&b) {
			value := 0
			for k := range b.Levels {
				if b.Def != nil && int(b.Def[k]) < c.MaxDef {
					texts[c.Path] = append(texts[c.Path], "-")
					continue
				}
				text, err := c.AppendText(nil, &b.Values, value)
				if err != nil {
					failed[c.Path] = err
				}
				texts[c.Path] = append(texts[c.Path], string(text))
				value++
			}
		}
		chunk.Close()
	}
	return texts, failed
}

// TestLogicalTypesOfPyarrow reads every logical type as pyarrow writes it, in each of its physical forms.
func TestLogicalTypesOfPyarrow(t *testing.T) {
	want := map[string]string{
		"int8":           "-128|127|-",
		"int64":          "-9223372036854775808|9223372036854775807|-",
		"uint8":          "0|255|-",
		"uint32":         "0|4294967295|-",
		"uint64":         "9007199254740993|18446744073709551615|-",
		"bool":           "true|false|-",
		"half":           "0.5|-65504|-",
		"float":          "0.1|1e+30|-",
		"double":         "0.1|1000000|-",
		"decimal_small":  "-0.05|12345.67|-",
		"decimal_middle": "-123456789012.345|0.001|-",
		"decimal_large":  "-12345678901234567890123.45|0.10|-",
		"decimal_whole":  "9007199254740993|-1|-",
		"decimal256":     strings.Repeat("9", 60) + ".5|-0.5|-",
		"date":           "1969-12-31|2024-02-29|-",
		"time_ms":        "00:00:00|23:59:59.999|-",
		"time_us":        "01:02:03|01:02:03.000004|-",
		"time_ns":        "01:02:03|01:02:03.000004|-",
		"stamp_ms":       "1969-12-31T23:59:59.5|2024-02-29T23:59:58.123|-",
		"stamp_us_utc":   "2024-02-29T23:59:58.123456Z|0001-01-01T00:00:00Z|-",
		"stamp_ns":       "2024-02-29T23:59:58.123456|1970-01-01T00:00:00|-",
		"stamp_zone":     "2024-02-29T23:59:58.123456Z|2000-01-01T00:00:00Z|-",
		"string":         "é||-",
		"large_string":   "é||-",
		"dictionary":     "a|b|-",
		"binary":         "\xff||-",
		"fixed":          "abc|def|-",
		"uuid":           "01234567-89ab-cdef-0123-456789abcdef|00000000-0000-0000-0000-000000000001|-",
		"json":           `{"a": 1}|[]|-`,
		"null":           "-|-|-",
	}
	for _, name := range []string{"logical", "logical_integers", "logical_split", "logical_int96"} {
		data, err := os.ReadFile(filepath.Join("testdata", name+".parquet"))
		if err != nil {
			t.Fatal(err)
		}
		got, failed := readTexts(t, data)
		for column, texts := range want {
			if name == "logical_int96" && strings.HasPrefix(column, "stamp") {
				texts = strings.ReplaceAll(texts, "Z", "") // INT96 knows no zones
			}
			if s := strings.Join(got[column], "|"); s != texts || failed[column] != nil {
				t.Errorf("%s: %s is %q, want %q (%v)", name, column, s, texts, failed[column])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d columns, want %d", name, len(got), len(want))
		}
	}
}

// typed is a required column of one value.
type typed struct {
	node  schema.Node
	value any
}

// writeTyped writes one row.
func writeTyped(t testing.TB, columns map[string]typed) []byte {
	t.Helper()
	var fields schema.FieldList
	var order []string
	for name, c := range columns {
		order, fields = append(order, name), append(fields, c.node)
	}
	var b bytes.Buffer
	w := file.NewParquetWriter(&b, schema.MustGroup(schema.NewGroupNode("schema", arrow.Repetitions.Required, fields,
		-1)))
	group := w.AppendRowGroup()
	for _, name := range order {
		c, err := group.NextColumn()
		if err != nil {
			t.Fatal(err)
		}
		switch v := columns[name].value.(type) {
		case string:
			if w, ok := c.(*file.FixedLenByteArrayColumnChunkWriter); ok {
				_, err = w.WriteBatch([]arrow.FixedLenByteArray{arrow.FixedLenByteArray(v)}, nil, nil)
			} else {
				_, err = c.(*file.ByteArrayColumnChunkWriter).WriteBatch([]arrow.ByteArray{arrow.ByteArray(v)}, nil,
					nil)
			}
		case int32:
			_, err = c.(*file.Int32ColumnChunkWriter).WriteBatch([]int32{v}, nil, nil)
		case int64:
			_, err = c.(*file.Int64ColumnChunkWriter).WriteBatch([]int64{v}, nil, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	group.Close()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestLogicalTypesOfOlderFiles reads what pyarrow does not write: types by the older enumeration alone, decimals in
// byte arrays of any length, intervals, and values that are no text.
func TestLogicalTypesOfOlderFiles(t *testing.T) {
	converted := func(kind arrow.Type, c schema.ConvertedType, width, precision, scale int, value any) typed {
		n, err := schema.NewPrimitiveNodeConverted("x", arrow.Repetitions.Required, kind, c, width, precision, scale,
			-1)
		if err != nil {
			t.Fatal(err)
		}
		return typed{n, value}
	}
	types, of := arrow.Types, schema.ConvertedTypes
	var interval []byte
	for _, part := range []uint32{1, 2, 3500} { // months, days, milliseconds
		interval = binary.LittleEndian.AppendUint32(interval, part)
	}
	month := string(interval)
	for name, c := range map[string]struct {
		column typed
		want   string
	}{
		"decimal in bytes": {converted(types.ByteArray, of.Decimal, -1, 30, 3, "\xff\x85"), "-0.123"},
		"decimal in more bytes": {converted(types.ByteArray, of.Decimal, -1, 30, 3,
			"\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"), "18446744073709551.616"},
		"decimal without a point": {converted(types.Int64, of.Decimal, -1, 18, 0, int64(-7)), "-7"},
		"decimal below one":       {converted(types.Int32, of.Decimal, -1, 9, 4, int32(5)), "0.0005"},
		"enum":                    {converted(types.ByteArray, of.Enum, -1, -1, -1, "RED"), "RED"},
		"json":                    {converted(types.ByteArray, of.JSON, -1, -1, -1, "{}"), "{}"},
		"interval": {converted(types.FixedLenByteArray, of.Interval, 12, -1, -1, month),
			"P1M2DT3.5S"},
		"unsigned": {converted(types.Int64, of.Uint64, -1, -1, -1, int64(-1)),
			"18446744073709551615"},
		"unsigned of 32 bits": {converted(types.Int32, of.Uint32, -1, -1, -1, int32(-2)), "4294967294"},
		"date": {converted(types.Int32, of.Date, -1, -1, -1, int32(math.MaxInt32)),
			"5881580-07-11"},
		"milliseconds": {converted(types.Int64, of.TimestampMillis, -1, -1, -1, int64(-1)),
			"1969-12-31T23:59:59.999Z"},
		"microseconds": {converted(types.Int64, of.TimestampMicros, -1, -1, -1, int64(1)),
			"1970-01-01T00:00:00.000001Z"},
		"milliseconds of a day": {converted(types.Int32, of.TimeMillis, -1, -1, -1, int32(1500)), "00:00:01.5Z"},
		"BSON": {converted(types.ByteArray, of.BSON, -1, -1, -1, "\x05\x00\x00\x00\x00"),
			"is BSON in BYTE_ARRAY"},
		"an empty decimal is no zero": {converted(types.ByteArray, of.Decimal, -1, 30, 3, ""), "a decimal of 0 bytes"},
	} {
		texts, failed := readTexts(t, writeTyped(t, map[string]typed{"x": c.column}))
		got := texts["x"][0]
		if err := failed["x"]; err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || failed["x"] == nil && got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestHalfFloats compares with the bits that IEEE 754 gives.
func TestHalfFloats(t *testing.T) {
	for bits, want := range map[uint16]float64{
		0: 0, 1: math.Ldexp(1, -24), 0x03ff: math.Ldexp(1023, -24), 0x0400: math.Ldexp(1, -14), 0x3c00: 1,
		0x3c01: 1 + 1./1024,
		0xc000: -2, 0x7bff: 65504, 0x7c00: math.Inf(1), 0xfc00: math.Inf(-1),
	} {
		if got := float16(bits); got != want {
			t.Errorf("%04x is %v, want %v", bits, got, want)
		}
	}
	if !math.IsNaN(float16(0x7e00)) || !math.Signbit(float16(0x8000)) {
		t.Error("NaN or -0 is lost")
	}
}
