package cpu

import "math"

// scaleIntegersGo writes unit * (2*sums - offset), rounded to float32 before the product.
func scaleIntegersGo(dst []float32, sums []int32, offset int32, unit float32) {
	for i, n := range sums[:len(dst)] {
		dst[i] = unit * float32(2*n-offset)
	}
}

// addScaledGo adds factor * p to dst, p being 2*sums - offset, and returns Σ ±p with the given signs. That sum is of
// integers and exact, so its order is free.
func addScaledGo(dst []float32, sums []int32, signs []uint64, offset int32, factor float32) (sum float64) {
	for i, n := range sums[:len(dst)] {
		p := float32(2*n - offset)
		dst[i] += float32(factor * p)
		sum += float64(p) * float64(int(signs[i>>6]>>(i&63)&1)*2-1)
	}
	return sum
}

// affineGo turns u into alpha*u - theta; never fused.
func affineGo(u, alpha, theta []float32) {
	alpha, theta = alpha[:len(u)], theta[:len(u)]
	for i, y := range u {
		u[i] = float32(alpha[i]*y) - theta[i]
	}
}

// addGo writes a + b.
func addGo(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

// maskGo copies src where a bit is set, and writes zeros elsewhere.
func maskGo(dst, src []float32, words []uint64) {
	for i, v := range src[:len(dst)] {
		keep := -uint32(words[i>>6] >> (i & 63) & 1)
		dst[i] = math.Float32frombits(math.Float32bits(v) & keep)
	}
}

func magnitude(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

// largestGo raises most to |x|.
func largestGo(most, x []float32) {
	for i, v := range x[:len(most)] {
		most[i] = max(most[i], magnitude(v))
	}
}

// largestProductGo is the largest |a*b|.
func largestProductGo(a, b []float32) (most float32) {
	for i, v := range a {
		most = max(most, magnitude(v*b[i]))
	}
	return most
}

// addColumnsGo adds x to sums.
func addColumnsGo(sums []float64, x []float32) {
	for i, v := range x[:len(sums)] {
		sums[i] += float64(v)
	}
}

// lanes are the partial sums of a reduction: value i goes to lane i%8, except those beyond the last whole eight, which are
// added in the end.
type lanes [8]float64

func (l *lanes) sum() float64 {
	return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

// sumSquaresGo is Σ x².
func sumSquaresGo(x []float32) float64 {
	var l lanes
	whole := len(x) &^ 7
	for i, v := range x[:whole] {
		l[i&7] += float64(v) * float64(v)
	}
	sum := l.sum()
	for _, v := range x[whole:] {
		sum += float64(v) * float64(v)
	}
	return sum
}
