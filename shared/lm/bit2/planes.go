package bit2

import (
	"encoding/binary"
	"fmt"
	"math"

	"bitnet1/kernels"
)

// smallest is the root mean square below which kernels.Device.Quantize divides a row by smallest.
const smallest = 1e-12

// appendPlanes packs a row in levels of q. Bit j of word i of plane b is bit b of the number of the level of element
// 64i+j, where the lowest level has number 0.
func appendPlanes(b []byte, row []float32, q kernels.Quantization) []byte {
	var squares float64
	for _, v := range row {
		squares += float64(v) * float64(v)
	}
	rms := math.Sqrt(max(squares/float64(len(row)), smallest*smallest))
	n := words(len(row))
	planes := make([]uint64, q.Planes()*n)
	for j, v := range row {
		level := uint64(q.Integer(float64(v)/rms)+q.Largest()) / 2
		for plane := range q.Planes() {
			planes[plane*n+j/wordBits] |= level >> plane & 1 << (j % wordBits)
		}
	}
	for _, word := range planes {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return b
}

// latents unpacks a row of levels of q to weights that have these levels.
//
// The levels themselves are no such weights: a row is quantized after a division by its root mean square, which is
// rarely 1 for a row of levels, so other levels could follow. These are rows with a root mean square of at most
// smallest, which are all divided by smallest.
func latents(out []float32, b []byte, q kernels.Quantization) error {
	n := words(len(out))
	if len(out)%wordBits != 0 {
		for plane := range q.Planes() {
			last := binary.LittleEndian.Uint64(b[8*(plane*n+n-1):])
			if last>>(len(out)%wordBits) != 0 {
				return errPadding
			}
		}
	}
	var sum, squares float64
	for j := range out {
		level := 0
		for plane := range q.Planes() {
			bit := b[8*(plane*n+j/wordBits)+j%wordBits/8] >> (j % 8) & 1
			level |= int(bit) << plane
		}
		integer := float64(2*level - q.Largest())
		out[j] = float32(integer)
		sum += math.Abs(integer)
		squares += integer * integer
	}
	towards, err := shrink(sum/float64(len(out)), squares/float64(len(out)), 1/float64(q.Unit()))
	for j, integer := range out {
		size := math.Abs(float64(integer)) - towards
		out[j] = float32(math.Copysign(smallest*float64(q.Unit())*size, float64(integer)))
	}
	return err
}

// shrink returns by how much the integers of a row are to become smaller for their root mean square to be at most
// limit. Their absolute values have the given mean and mean square. An integer stands for all values that are nearer to
// it than 1, and beyond for the largest: so there is such a number below 1 if the levels are those of any row.
func shrink(mean, meanSquare, limit float64) (float64, error) {
	if meanSquare <= limit*limit {
		return 0, nil
	}
	towards := mean - math.Sqrt(max(mean*mean-meanSquare+limit*limit, 0)) // mean of (|n| - towards)² = limit²
	if towards > 1-1e-4 {                                                 // the weights are rounded to float32
		return 0, fmt.Errorf("its levels are those of no row: their root mean square is %.3g", math.Sqrt(meanSquare)/limit)
	}
	return towards, nil
}
