package bit2

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
)

// rowsOf are rows that training and people may leave: the shape of a normal, few large values, two values, tiny ones.
func rowsOf(random *rand.Rand, width int) [][]float32 {
	row := func(value func(j int) float64) []float32 {
		out := make([]float32, width)
		for j := range out {
			out[j] = float32(value(j))
		}
		return out
	}
	rows := [][]float32{
		row(func(int) float64 { return 0 }),
		row(func(int) float64 { return 3 }),
		row(func(j int) float64 { return float64(j%2*2 - 1) }),
		row(func(int) float64 { return 1e-13 * random.NormFloat64() }),
		row(func(int) float64 { return 1e15 * random.NormFloat64() }),
		row(func(int) float64 { return math.Pow(random.NormFloat64(), 5) }),
		row(func(j int) float64 { return 1 / float64(1+j*j) }),
		row(func(int) float64 { return 2*random.Float64() - 1 }),
	}
	for range 50 {
		rows = append(rows, row(func(int) float64 { return 0.03 * random.NormFloat64() }))
	}
	return rows
}

// The bits are those of the levels that the row has, and the weights that come back have these levels again.
func TestLevels(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 9))
	for bits := 2; bits <= 8; bits++ {
		q := kernels.Normal(bits)
		for _, width := range []int{1, 2, 63, 64, 65, 200} {
			for i, row := range rowsOf(random, width) {
				packed := appendPlanes(nil, row, q)
				if len(packed) != 8*bits*words(width) {
					t.Fatalf("%d bits, %d values: %d bytes", bits, width, len(packed))
				}
				want := levelsOf(row, q)
				if got := integersOf(packed, width, bits); !slices.Equal(got, want) {
					t.Fatalf("%d bits, row %d of %d values: %v, want %v", bits, i, width, got, want)
				}
				back := make([]float32, width)
				if err := latents(back, packed, q); err != nil {
					t.Fatalf("%d bits, row %d of %d values: %v", bits, i, width, err)
				}
				if got := levelsOf(back, q); !slices.Equal(got, want) {
					t.Fatalf("%d bits, row %d of %d values: %v came back, want %v", bits, i, width, got, want)
				}
			}
		}
	}
}

// A device has the very words of the file, of the latents and of the weights that are read from the file.
func TestDeviceHasTheWordsOfTheFile(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 1))
	for bits := 2; bits <= 8; bits++ {
		q, width := kernels.Normal(bits), 150
		latent := slices.Concat(rowsOf(random, width)...)
		var packed []byte
		for row := range slices.Chunk(latent, width) {
			packed = appendPlanes(packed, row, q)
		}
		read := make([]float32, len(latent))
		e := entry{Kind: kindPlanes, Bits: bits, Shape: []int{len(latent) / width, width}}
		if err := e.decode(read, packed, q); err != nil {
			t.Fatal(err)
		}
		for what, weights := range map[string][]float32{"latents": latent, "weights of the file": read} {
			if got := quantized(t, weights, width, q); !bytes.Equal(got, packed) {
				t.Errorf("%d bits: a device makes other planes of the %s", bits, what)
			}
		}
	}
}

// quantized are the planes that a device makes of weights.
func quantized(t *testing.T, weights []float32, width int, q kernels.Quantization) []byte {
	t.Helper()
	d := cpu.New(cpu.Options{})
	rows := len(weights) / width
	planes, err := d.NewPlanes(rows, width, q)
	if err != nil {
		t.Fatal(err)
	}
	w, err := d.NewFloats(len(weights))
	if err != nil {
		t.Fatal(err)
	}
	d.Upload(w, weights)
	d.Quantize(kernels.Linear{In: width, Out: rows, Weight: w, Quantized: planes})
	stored := make([]uint64, rows*q.Planes()*words(width))
	if err := d.DownloadPlanes(stored, planes); err != nil {
		t.Fatal(err)
	}
	var b []byte
	for _, word := range stored {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return b
}

// levelsOf are the integers behind the levels of a row, by the formula of kernels.Device.Quantize.
func levelsOf(row []float32, q kernels.Quantization) (levels []int) {
	var squares float64
	for _, w := range row {
		squares += float64(w) * float64(w) / float64(len(row))
	}
	for _, w := range row {
		levels = append(levels, q.Integer(float64(w)/math.Sqrt(max(squares, 1e-24))))
	}
	return levels
}

// integersOf reads a row of planes as the format's page says: the integer is the sum of 2^b for every bit that is 1,
// and of -2^b for every other.
func integersOf(b []byte, width, bits int) (integers []int) {
	plane := len(b) / bits
	for j := range width {
		n := 0
		for p := range bits {
			sign := int(b[p*plane+j/8]>>(j%8)&1)*2 - 1
			n += sign << p
		}
		integers = append(integers, n)
	}
	return integers
}

// Levels that no row has are refused, and so are bits behind a row.
func TestRefusesImpossibleLevels(t *testing.T) {
	q := kernels.Normal(4)
	out := make([]float32, 10)
	highest := make([]byte, 8*4)
	for plane := range 4 {
		copy(highest[8*plane:], []byte{0xff, 0x03})
	}
	if err := latents(out, highest, q); err == nil || !strings.Contains(err.Error(), "levels are those of no row") {
		t.Errorf("a row of the highest levels alone: %v", err)
	}
	for plane := range 4 {
		padding := bytes.Repeat([]byte{0}, len(highest))
		padding[8*plane+1] = 0x04
		if err := latents(out, padding, q); err != errPadding {
			t.Errorf("a bit behind plane %d: %v", plane, err)
		}
	}
}
