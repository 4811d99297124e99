// Package alloctest bounds the memory that decoders take, for tests. All packages may import it.
package alloctest

import (
	"runtime"
	"testing"
)

// AtMost fails if f takes more memory than that, in bytes, freed or not. What takes no memory for long takes no time
// for long either, so a bound on the one bounds the other in most decoders.
func AtMost(t testing.TB, most int64, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got := int64(after.TotalAlloc - before.TotalAlloc); got > most {
		t.Errorf("%d bytes of memory where %d are the most", got, most)
	}
}
