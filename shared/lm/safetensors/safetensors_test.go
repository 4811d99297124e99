package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/alloctest"
)

// file builds a file from a header as it stands and n bytes of data.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func open(b []byte) (*File, error) { return New("test", bytes.NewReader(b), int64(len(b))) }

// A buffer that is large enough is what a tensor is read into; a smaller one is left alone.
func TestReadsIntoABuffer(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, nil, []Tensor{{Name: "x", Shape: []int{3}, Data: []float32{1, 2, 3}}}); err != nil {
		t.Fatal(err)
	}
	f, err := New("x", bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for size, reused := range map[int]bool{2: false, 3: true, 5: true} {
		buffer := make([]float32, size)
		got, err := f.Float32In(buffer, "x")
		if err != nil || !slices.Equal(got, []float32{1, 2, 3}) {
			t.Errorf("%d: read %v, %v", size, got, err)
		} else if (&got[0] == &buffer[0]) != reused {
			t.Errorf("%d: the buffer is reused: %v", size, !reused)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	metadata := map[string]string{"format": "test", "text": "naïve <\"quoted\">\n"}
	tensors := []Tensor{
		{"z", []int{2, 3}, []float32{1, -2, 0.5, float32(math.Inf(1)), math.SmallestNonzeroFloat32, -0}},
		{"counters", []int{3}, []int8{-128, 0, 127}},
		{"a", []int{2}, []float64{math.Pi, -1e300}},
		{"rng", []int{1}, []int64{math.MinInt64}},
		{"bytes", []int{4}, []uint8("abcd")},
		{"scalar", nil, []int32{-7}},
		{"empty", []int{0, 5}, []float32{}},
		{"long", []int{100_003}, slices.Repeat([]float32{1.5, 2.5, -3}, 33335)[:100_003]},
	}
	var b, again bytes.Buffer
	if err := Write(&b, metadata, tensors); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(tensors)
	if err := Write(&again, metadata, tensors); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("the order of the tensors changed the bytes (%v)", err)
	}
	if n := binary.LittleEndian.Uint64(b.Bytes()); n%8 != 0 {
		t.Errorf("data begin at %d, not aligned", 8+n)
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !reflect.DeepEqual(f.Metadata(), metadata) || len(f.Names()) != len(tensors) {
		t.Errorf("metadata %v, names %v", f.Metadata(), f.Names())
	}
	for _, want := range tensors {
		info, err := f.Tensor(want.Name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(info.Shape, want.Shape) || info.begin%info.DType.Size() != 0 {
			t.Errorf("%s: shape %v at %d", want.Name, info.Shape, info.begin)
		}
		var got any
		switch info.DType {
		case F64:
			got, err = f.Float64(want.Name)
		case F32:
			got, err = f.Float32(want.Name)
		case U8:
			got, err = f.Bytes(want.Name)
		default:
			got, err = f.Int64(want.Name)
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want.Data) {
			t.Errorf("%s came back different (%v)", want.Name, err)
		}
		if read, err := f.Read(want.Name); err != nil || !reflect.DeepEqual(read.Data, want.Data) {
			t.Errorf("Read gave another %s (%v)", want.Name, err)
		}
	}
}

func TestConversions(t *testing.T) {
	header := `{"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"h":{"dtype":"F16","shape":[2],` +
		`"data_offsets":[8,12]},` +
		`"b":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]},"s":{"dtype":"I16","shape":[],"data_offsets":[16,18]}}`
	data := file(header, 18)
	at := data[8+len(header):]
	binary.LittleEndian.PutUint64(at, math.Float64bits(0.1))
	copy(at[8:], []byte{0x00, 0x3c, 0x01, 0x00, 0x80, 0x3f, 0x00, 0xc0, 0xfe, 0xff})
	f, err := open(data)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]float32{"d": {0.1}, "h": {1, 1.0 / (1 << 24)}, "b": {1, -2}} {
		if got, err := f.Float32(name); err != nil || !slices.Equal(got, want) {
			t.Errorf("Float32(%s) = %v, %v; want %v", name, got, err, want)
		}
	}
	if got, err := f.Int64("s"); err != nil || got[0] != -2 {
		t.Errorf("Int64(s) = %v, %v", got, err)
	}
	for name, err := range map[string]error{
		"absent": second(f.Float32("absent")), "s": second(f.Float32("s")), "h": second(f.Int64("h")),
	} {
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("reading %s as the wrong type: error %v does not name it", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

var hostile = map[string][]byte{
	"empty":       {},
	"short":       {1, 2, 3},
	"no header":   file("", 0),
	"huge header": binary.LittleEndian.AppendUint64(nil, 1<<63),
	"long header": append(binary.LittleEndian.AppendUint64(nil, 99_000_000), '{', '}'),
	"list":        file(`[]`, 0),
	"unclosed":    file(`{`, 0),
	"trailing":    file(`{} x`, 0),
	"not UTF-8":   file("{\"\xff\":1}", 0),
	"twice": file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],`+
		`"data_offsets":[1,2]}}`, 2),
	"metadata number": file(`{"__metadata__":{"a":1}}`, 0),
	"gap":             file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2),
	"overlap": file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[1],`+
		`"data_offsets":[1,2]}}`, 2),
	"truncated": file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 1),
	"extended":  file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 3),
	"petabyte": file(`{"a":{"dtype":"F32","shape":[1099511627776,1024],"data_offsets":[0,4503599627370496]}}`,
		8),
	"overflow":       file(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0),
	"key twice":      file(`{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
	"part of a byte": file(`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}`, 2),
	"negative":       file(`{"a":{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}}`, 8),
	"backwards":      file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}}`, 1),
	"wrong size":     file(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8),
	"unknown type":   file(`{"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}`, 8),
	"no shape":       file(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1),
	"no offsets":     file(`{"a":{"dtype":"U8","shape":[1]}}`, 1),
	"three offsets":  file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}`, 1),
	"deep":           file(`{"a":{"shape":`+strings.Repeat("[", 1<<16), 0),
}

// The safetensors library opens all of these (version 0.8).
func TestOpensWhatTheLibraryOpens(t *testing.T) {
	const a = `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`
	for name, b := range map[string][]byte{
		"space around":  file("\n "+a+" \t", 1),
		"a further key": file(`{"a":{"dtype":"U8","shape":[1],"note":{"x":[1]},"data_offsets":[0,1]}}`, 1),
		"no metadata":   file(`{"__metadata__":null,"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"metadata twice": file(`{"__metadata__":{"a":"1","a":"2"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,`+
			`1]}}`, 1),
		"the last of two": file(`{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]},"a":{"dtype":"U8",`+
			`"shape":[1],"data_offsets":[0,1]}}`, 1),
		"vast but empty": file(`{"a":{"dtype":"F32","shape":[9223372036854775807,0],"data_offsets":[0,0]}}`, 0),
		"no tensors":     file(`{}`, 0),
		"types of bits": file(`{"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]},"b":{"dtype":"F6_E3M2",`+
			`"shape":[4],"data_offsets":[2,5]}}`, 5),
		"types of one byte": file(`{"a":{"dtype":"F8_E4M3FNUZ","shape":[1],"data_offsets":[0,1]},`+
			`"b":{"dtype":"F8_E5M2FNUZ","shape":[1],"data_offsets":[1,2]}}`, 2),
		"order of names": file(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8",`+
			`"shape":[1],"data_offsets":[1,2]}}`, 2),
	} {
		f, err := open(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, tensor := range f.Names() {
			if _, err := f.Bytes(tensor); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestRefusesHostileFiles(t *testing.T) {
	for name, b := range hostile {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := open(b)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), "test") {
			t.Errorf("%s: error %q does not name the file", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20+64*uint64(len(b)) {
			t.Errorf("%s: refusing %d bytes allocated %d", name, len(b), n)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, list := range map[string][]Tensor{
		"twice":    {{"a", []int{1}, []int8{1}}, {"a", []int{1}, []int8{1}}},
		"shape":    {{"a", []int{2}, []int8{1}}},
		"negative": {{"a", []int{-1, -1}, []int8{1}}},
		"type":     {{"a", []int{1}, []string{"x"}}},
		"reserved": {{"__metadata__", []int{1}, []int8{1}}},
	} {
		if Write(&bytes.Buffer{}, nil, list) == nil {
			t.Errorf("%s: written", name)
		}
	}
}

// TestGolden reads a file written by the Python reference.
func TestGolden(t *testing.T) {
	f, err := Open("../model/testdata/golden/v76.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	loss, err := f.Float64("loss")
	if err != nil || len(loss) != 1 || !(loss[0] > 1 && loss[0] < 20) {
		t.Errorf("loss %v, %v", loss, err)
	}
	if p, err := f.Int64("pointers.1"); err != nil || slices.Max(p) >= 20 {
		t.Errorf("pointers %v, %v", p, err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, b := range hostile {
		f.Add(b)
	}
	var good bytes.Buffer
	if err := Write(&good, map[string]string{"k": "v"},
		[]Tensor{{"a", []int{2}, []float32{1, 2}}, {"b", nil, []int64{3}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var file *File
		var err error
		alloctest.AtMost(t, 1<<16+64*int64(len(b)), func() { file, err = open(b) })
		if err != nil {
			return
		}
		total := 0
		for _, name := range file.Names() {
			raw, err := file.Bytes(name)
			if err != nil {
				t.Fatalf("%s passed the checks but cannot be read: %v", name, err)
			}
			total += len(raw)
			file.Float32(name)
			file.Float64(name)
			file.Int64(name)
		}
		if total+int(file.data) != len(b) {
			t.Fatalf("read %d of %d bytes", total, len(b)-int(file.data))
		}
	})
}

// BenchmarkRead reads a file of 64 MiB as float32, one tensor after the other in the memory of one.
func BenchmarkRead(b *testing.B) {
	const tensors, n = 16, 1 << 20
	var all []Tensor
	for i := range tensors {
		all = append(all, Tensor{Name: string(rune('a' + i)), Shape: []int{n}, Data: make([]float32, n)})
	}
	path := filepath.Join(b.TempDir(), "x.safetensors")
	w, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(Write(w, nil, all), w.Close()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4 * tensors * n)
	b.ReportAllocs()
	for b.Loop() {
		f, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		var buffer []float32
		for _, name := range f.Names() {
			if buffer, err = f.Float32In(buffer, name); err != nil {
				b.Fatal(err)
			}
		}
		f.Close()
	}
}
