package devicetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"bitnet1/kernels"
)

// Rank is a device and the communicator that joins it with those of the other ranks.
type Rank struct {
	kernels.Device
	kernels.Communicator
}

// RunCommunicator tests worlds of so many ranks, which goroutines stand for. join makes a world.
func RunCommunicator(t *testing.T, join func(t testing.TB, ranks int) []Rank, worlds ...int) {
	t.Helper()
	for _, ranks := range worlds {
		t.Run(fmt.Sprint(ranks, " ranks"), func(t *testing.T) {
			t.Run("exchanges", func(t *testing.T) { testExchanges(t, join(t, ranks)) })
			t.Run("abort", func(t *testing.T) { testAbort(t, join(t, ranks)) })
		})
	}
}

// together calls f for each rank at the same time.
func together(world []Rank, f func(r Rank) error) error {
	failed := make([]error, len(world))
	var wait sync.WaitGroup
	for i, r := range world {
		wait.Go(func() { failed[i] = f(r) })
	}
	wait.Wait()
	return errors.Join(failed...)
}

// testExchanges sums and broadcasts in steps, as training does: sums begin while other terms are still added up, and
// take the memory of the step before.
func testExchanges(t *testing.T, world []Rank) {
	const fraction, parts, steps = 20, 3, 4
	r, ranks := rand.New(rand.NewPCG(3, uint64(len(world)))), len(world)
	for _, n := range []int{1, 100, 70001} {
		roots, middle := [2]int{r.IntN(ranks), r.IntN(ranks)}, n/3
		terms, want := make([][]float32, ranks), make([]float32, parts*n)
		for rank := range terms {
			terms[rank] = make([]float32, parts*n)
			for i := range terms[rank] {
				v := float32(r.IntN(1<<20)-1<<19) / (1 << 8) // sums of them are exact
				terms[rank][i] = v
				want[i] += v
			}
		}
		err := together(world, func(r Rank) error {
			a := &kernels.Allocator{Device: r.Device}
			all, x, shared := a.Longs(parts*n+1), a.Floats(parts*n), a.Floats(n)
			if a.Err != nil {
				return a.Err
			}
			part := func(k int) kernels.FixedSums {
				return kernels.FixedSums{Sums: all.Slice(k*n, k*n+n), Overflow: all.Slice(parts*n, parts*n+1), Fraction: fraction}
			}
			for step := range steps {
				r.ZeroLongs(all.Slice(parts*n, parts*n+1))
				r.Upload(x, terms[r.Rank()])
				r.Upload(shared, terms[r.Rank()][:n])
				r.Broadcast(
					kernels.Broadcast{X: shared.Slice(0, middle), Root: roots[0]},
					kernels.Broadcast{X: shared.Slice(middle, n), Root: roots[1]})
				for k := range parts {
					r.SetFixed(part(k), x.Slice(k*n, k*n+n))
					r.AllReduce(part(k).Sums)
				}
				r.Join()
				if err := r.Err(); err != nil {
					return err
				}
				for k := range parts {
					r.ReadFixed(x.Slice(k*n, k*n+n), part(k))
				}
				sums, got := make([]float32, parts*n), make([]float32, n)
				if err := errors.Join(r.Download(sums, x), r.Download(got, shared)); err != nil {
					return err
				}
				if !slices.Equal(sums, want) {
					return fmt.Errorf("rank %d, step %d: %d values have other sums than they should", r.Rank(), step, n)
				}
				if !slices.Equal(got, slices.Concat(terms[roots[0]][:middle], terms[roots[1]][middle:n])) {
					return fmt.Errorf("rank %d, step %d: %d values are not those of ranks %v", r.Rank(), step, n, roots)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// testAbort: a rank that takes no part in an exchange lets the others wait until they are aborted, and then none waits.
// The memory that is in no exchange is still there.
func testAbort(t *testing.T, world []Rank) {
	cause := errors.New("rank 0 was lost")
	lost, aborted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(aborted)
		<-lost
		_ = together(world, func(r Rank) error {
			r.Abort(cause)
			return nil
		})
	}()
	err := together(world, func(r Rank) error {
		a := &kernels.Allocator{Device: r.Device}
		kept, sums := a.Floats(3), a.Longs(50000)
		if a.Err != nil {
			return a.Err
		}
		r.Upload(kept, []float32{1, 2, 3})
		r.AllReduce(sums)
		r.Join()
		if r.Rank() == 0 {
			close(lost)
		} else {
			r.AllReduce(sums)
		}
		r.Join()
		<-aborted
		if r.Err() == nil {
			return fmt.Errorf("rank %d knows of no failure", r.Rank())
		}
		r.AllReduce(sums) // does nothing
		r.Join()
		got := make([]float32, 3)
		if err := r.Download(got, kept); err != nil || !slices.Equal(got, []float32{1, 2, 3}) {
			return fmt.Errorf("rank %d: after an abort memory holds %v (%w)", r.Rank(), got, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
