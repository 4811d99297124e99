package cpu

import (
	"slices"
	"testing"
)

// The assembly must give the bits that the Go loops give.
func TestWideEqualsPlain(t *testing.T) {
	if !haveAVX2 {
		t.Skip("this processor has no AVX2")
	}
	r := random(6)
	for _, k := range []int{1, 2, 7, 256} {
		a, b, c := normals(r, k*tileRows), normals(r, k*tileCols), normals(r, 100)
		want := slices.Clone(c)
		tileGo(want, 20, a, b, k)
		tile(c, 20, a, b, k)
		if !slices.Equal(c, want) {
			t.Errorf("tiles of %d products differ", k)
		}
	}
	for _, words := range []int{4, 8, 16, 64} {
		for _, rows := range []int{1, 4, 7, 128} {
			x, w := make([]uint64, words), make([]uint64, rows*words)
			for i := range x {
				x[i] = r.Uint64() | r.Uint64()
			}
			for i := range w {
				w[i] = r.Uint64() | r.Uint64() | r.Uint64()
			}
			got, want := make([]int32, rows), make([]int32, rows)
			andCounts(got, x, w)
			andCountsGo(want, x, w)
			if !slices.Equal(got, want) {
				t.Errorf("counts of %d rows of %d words differ: %v, want %v", rows, words, got, want)
			}
		}
	}
}
