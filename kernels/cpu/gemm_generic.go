//go:build !amd64

package cpu

func tile(c []float32, ldc int, a, b []float32, k int) { tileGo(c, ldc, a, b, k) }
