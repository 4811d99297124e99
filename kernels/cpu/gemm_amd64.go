package cpu

import "golang.org/x/sys/cpu"

var haveAVX2 = cpu.X86.HasAVX2

// tileAVX2 is tileGo with eight lanes; every lane does the same multiplication and addition.
//
//go:noescape
func tileAVX2(c *float32, ldc int, a, b *float32, k int)

func tile(c []float32, ldc int, a, b []float32, k int) {
	if !haveAVX2 || k == 0 {
		tileGo(c, ldc, a, b, k)
		return
	}
	_, _, _ = c[(tileRows-1)*ldc+tileCols-1], a[k*tileRows-1], b[k*tileCols-1]
	tileAVX2(&c[0], ldc, &a[0], &b[0], k)
}
