package cpu

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/devicetest"
)

// ring returns the communicators of so many ranks, which are goroutines here.
func ring(t testing.TB, ranks int) []*Communicator {
	t.Helper()
	to, from := make([]net.Conn, ranks), make([]net.Conn, ranks)
	for r := range ranks {
		to[r], from[(r+1)%ranks] = net.Pipe()
	}
	all := make([]*Communicator, ranks)
	for r := range all {
		all[r] = NewCommunicator(r, ranks, to[r], from[r])
		t.Cleanup(func() { all[r].Abort(errors.New("the test is over")) })
	}
	return all
}

// together calls f for each rank at the same time.
func together(all []*Communicator, f func(c *Communicator)) {
	var wait sync.WaitGroup
	for _, c := range all {
		wait.Go(func() { f(c) })
	}
	wait.Wait()
}

func TestCommunicator(t *testing.T) {
	for _, ranks := range []int{1, 2, 3, 4, 8} {
		for _, n := range []int{0, 1, 7, 100, 3*piece + 5} {
			t.Run(fmt.Sprintf("%d ranks, %d values", ranks, n), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(ranks), uint64(n)))
				sums, root, middle := make([]int64, n), []int{r.IntN(ranks), r.IntN(ranks)}, n/3
				terms, floats := make([]longs, ranks), make([]floats, ranks)
				for rank := range ranks {
					for i := range n {
						terms[rank] = append(terms[rank], int64(r.Uint64()))
						floats[rank] = append(floats[rank], r.Float32())
						sums[i] += terms[rank][i]
					}
				}
				want := slices.Concat(floats[root[0]][:middle], floats[root[1]][middle:])
				together(ring(t, ranks), func(c *Communicator) {
					c.AllReduce(terms[c.Rank()].Slice(0, n/2))
					c.Broadcast(
						kernels.Broadcast{X: floats[c.Rank()].Slice(0, middle), Root: root[0]},
						kernels.Broadcast{X: floats[c.Rank()].Slice(middle, n), Root: root[1]})
					c.AllReduce(terms[c.Rank()].Slice(n/2, n))
					c.Join()
					if c.Err() != nil || !slices.Equal(terms[c.Rank()], sums) || !slices.Equal(floats[c.Rank()], want) {
						t.Errorf("rank %d has other sums or another root's values (%v)", c.Rank(), c.Err())
					}
				})
			})
		}
	}
}

// Whichever rank is lost, and whenever, every other rank learns of it and none waits for ever.
func TestCommunicatorOfALostRank(t *testing.T) {
	for _, ranks := range []int{2, 4, 5} {
		for lost := range ranks {
			all := ring(t, ranks)
			cause := errors.New("killed")
			together(all, func(c *Communicator) {
				x := make(longs, 4*piece)
				c.AllReduce(x)
				c.Join()
				if c.Rank() == lost {
					c.Abort(cause)
					return
				}
				c.AllReduce(x)
				c.Broadcast(kernels.Broadcast{X: make(floats, 9), Root: lost})
				c.Join()
				if c.Err() == nil {
					t.Errorf("rank %d of %d did not see that rank %d was lost", c.Rank(), ranks, lost)
				}
			})
			if !errors.Is(all[lost].Err(), cause) {
				t.Errorf("the rank that ended says %v", all[lost].Err())
			}
		}
	}
}

func TestCommunicatorConformance(t *testing.T) {
	devicetest.RunCommunicator(t, func(t testing.TB, ranks int) []devicetest.Rank {
		var world []devicetest.Rank
		for _, c := range ring(t, ranks) {
			world = append(world, devicetest.Rank{Device: New(Options{Workers: 1}), Communicator: c})
		}
		return world
	}, 1, 2, 3)
}
