//go:build !amd64

package cpu

func andCounts(dst []int32, x, w []uint64) { andCountsGo(dst, x, w) }
