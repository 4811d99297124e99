package cpu

import (
	"math"
	"math/bits"
)

// scaleIntegersGo writes unit * (2*sums - offset), rounded to float32 before the product.
func scaleIntegersGo(dst []float32, sums []int32, offset int32, unit float32) {
	for i, n := range sums[:len(dst)] {
		dst[i] = unit * float32(2*n-offset)
	}
}

// affineSumsGo writes alpha*y - theta, y being what scaleIntegersGo writes; never fused.
func affineSumsGo(dst []float32, sums []int32, alpha, theta []float32, offset int32, unit float32) {
	scaleIntegersGo(dst, sums, offset, unit)
	affineGo(dst, alpha, theta)
}

// signsOfSumsGo packs the signs of what affineSumsGo writes, and where it is at most 1 in size.
func signsOfSumsGo(signs, pass []uint64, sums []int32, alpha, theta []float32, offset int32, unit float32) {
	var u [64]float32
	for i := 0; i < len(sums); i += 64 {
		part := u[:min(64, len(sums)-i)]
		affineSumsGo(part, sums[i:], alpha[i:], theta[i:], offset, unit)
		packSignsGo(signs[i/64:i/64+1], part)
		packPassGo(pass[i/64:i/64+1], part)
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

// maximumGo is the largest value of x, which is not empty.
func maximumGo(x []float32) float32 {
	most := x[0]
	for _, v := range x[1:] {
		most = max(most, v)
	}
	return most
}

// lane8 are the partial sums of a reduction: value i goes to lane i%8, up to the last whole eight. What is beyond them is
// summed up in the same way, one lane each, and added in the end.
type lane8[F float32 | float64] [8]F

func (l *lane8[F]) sum() F {
	return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

// inLanes sums term over 0..n-1.
func inLanes[F float32 | float64](n int, term func(i int) F) F {
	var whole, rest lane8[F]
	for i := range n &^ 7 {
		whole[i&7] += term(i)
	}
	for i := n &^ 7; i < n; i++ {
		rest[i&7] += term(i)
	}
	return whole.sum() + rest.sum()
}

// sumSquaresGo is Σ x².
func sumSquaresGo(x []float32) float64 {
	return inLanes(len(x), func(i int) float64 { return float64(x[i]) * float64(x[i]) })
}

// exponentialsGo turns x into exp(x - top), for x <= top, and returns their sum. The exponential is Cephes' expf (Moshier):
// 2^k times a polynomial, about 1e-7 from the truth; below exp(-87) it is exp(-87).
func exponentialsGo(x []float32, top float32) float64 {
	return inLanes(len(x), func(i int) float64 {
		v := max(x[i]-top, -87)
		k := float32(math.RoundToEven(float64(float32(v * 1.44269504))))
		v -= float32(k * 0.693359375)
		v -= float32(k * -2.12194440e-4)
		y := float32(1.9875691500e-4)
		for _, c := range [...]float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
			y = float32(y*v) + c
		}
		y = float32(y*float32(v*v)) + v + 1
		y *= math.Float32frombits(uint32(int32(k)+127) << 23)
		x[i] = y
		return float64(y)
	})
}

// passNormalizedGo copies the gradient da of a = gain * x * r where |a| <= limit, writes zeros elsewhere, and returns
// Σ da * gain * x of what passed.
func passNormalizedGo(dst, da, x, gain []float32, r, limit float64) float64 {
	return inLanes(len(dst), func(i int) float64 {
		v, g := float64(x[i]), float64(gain[i])
		dst[i] = 0
		if math.Abs(float64(g*v)*r) <= limit {
			dst[i] = da[i]
		}
		return float64(float64(float64(dst[i])*g) * v)
	})
}

// addNormalizedGo adds r * (da*gain - x*c) to dx and da * x * r to dGain.
func addNormalizedGo(dx []float32, dGain []float64, da, x, gain []float32, r, c float64) {
	for i := range dx {
		d, v := float64(da[i]), float64(x[i])
		dx[i] += float32(r * (float64(d*float64(gain[i])) - float64(v*c)))
		dGain[i] += float64(d * float64(v*r))
	}
}

// readGradientGo adds w*do to dv and returns do·v.
func readGradientGo(dv, do, v []float32, w float32) float32 {
	for i := range dv {
		dv[i] += float32(w * do[i])
	}
	return inLanes(len(dv), func(i int) float32 { return float32(do[i] * v[i]) })
}

// scoreGradientGo adds s*k to dq and s*q to dk.
func scoreGradientGo(dq, dk, q, k []float32, s float32) {
	for i := range dq {
		dq[i] += float32(s * k[i])
		dk[i] += float32(s * q[i])
	}
}

// rankedReadGo is readGradientGo for the rows at of dv and v, as long as do.
func rankedReadGo(dots *[4]float32, dv, do, v []float32, at *[4]int32, w *[4]float32) {
	for r, u := range at {
		from := int(u) * len(do)
		dots[r] = readGradientGo(dv[from:from+len(do)], do, v[from:], w[r])
	}
}

// rankedScoresGo is scoreGradientGo for the rows at of dk and k, as long as dq.
func rankedScoresGo(dq, dk, q, k []float32, at *[4]int32, s *[4]float32) {
	for r, u := range at {
		from := int(u) * len(dq)
		scoreGradientGo(dq, dk[from:], q, k[from:], s[r])
	}
}

// nearestGo offers the last n of the keys k to the four queries q, the last of which is at the last key's position. best and
// away hold each query's four best scores and how far away their keys are, the best first. Of equal scores the nearest comes
// first. The score of a key that differs in so many bits is (score[0] - 2*bits) / score[1] - score[2]*distance, lane by lane.
func nearestGo(best, away *[4][4]float64, q, k []uint64, n int, score *[3][4]float64) {
	for i := range n {
		key := k[len(k)-1-i]
		for j := range 4 {
			distance := float64(j - 3 + i)
			if distance < 0 {
				continue
			}
			differ := float64(bits.OnesCount64(q[j] ^ key))
			s := (score[0][j]-2*differ)/score[1][j] - float64(score[2][j]*distance)
			for r := len(best) - 1; r >= 0 && s > best[r][j]; r-- {
				if r+1 < len(best) {
					best[r+1][j], away[r+1][j] = best[r][j], away[r][j]
				}
				best[r][j], away[r][j] = s, distance
			}
		}
	}
}
