package cpu

import "math"

// addGo writes a + b.
func addGo(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

func magnitude(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

// absMaxGo raises most to |x|. NaN counts as larger than any number.
func absMaxGo(most, x []float32) {
	for i, v := range x[:len(most)] {
		most[i] = max(most[i], magnitude(v))
	}
}

// multiplyGo writes a * b.
func multiplyGo(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] * b[i]
	}
}

// scaleGo multiplies x by factor.
func scaleGo(x []float32, factor float32) {
	for i := range x {
		x[i] *= factor
	}
}

// maximumGo is the largest number among x, or -Inf.
func maximumGo(x []float32) float32 {
	most := float32(math.Inf(-1))
	for _, v := range x {
		if v > most {
			most = v
		}
	}
	return most
}

// widen converts len(dst) values.
func widen(dst []float64, src []float32) {
	for i, v := range src[:len(dst)] {
		dst[i] = float64(v)
	}
}

// narrow rounds len(dst) values.
func narrow(dst []float32, src []float64) {
	for i, v := range src[:len(dst)] {
		dst[i] = float32(v)
	}
}
