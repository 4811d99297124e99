package timing

import (
	"errors"
	"net"
	"sync"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cpu"
	"bitnet1/kernels/devicetest"
)

// ring joins so many processors.
func ring(t testing.TB, ranks int) (world []devicetest.Rank) {
	t.Helper()
	to, from := make([]net.Conn, ranks), make([]net.Conn, ranks)
	for r := range ranks {
		to[r], from[(r+1)%ranks] = net.Pipe()
	}
	for r := range ranks {
		c := OfCommunicator(cpu.NewCommunicator(r, ranks, to[r], from[r]))
		t.Cleanup(func() { c.Abort(errors.New("the test is over")) })
		world = append(world, devicetest.Rank{Device: cpu.New(cpu.Options{Workers: 1}), Communicator: c})
	}
	return world
}

// The communicator exchanges what the one inside does.
func TestCommunicator(t *testing.T) { devicetest.RunCommunicator(t, ring, 1, 2, 3) }

// Exchanges of one kind are counted together, and Join where there was something to wait for.
func TestMeasuresExchanges(t *testing.T) {
	world := ring(t, 2)
	measured, failed := make([][]Operation, 2), make([]error, 2)
	var wait sync.WaitGroup
	for rank, r := range world {
		wait.Go(func() {
			sums, _ := r.NewLongs(5000)
			x, _ := r.NewFloats(300)
			p := r.Communicator.(ExchangeProfiler)
			p.AllReduce(sums)
			p.Join()
			p.StartProfile() // forgets that
			p.AllReduce(sums)
			p.Broadcast(kernels.Broadcast{X: x.Slice(0, 100), Root: 1}, kernels.Broadcast{X: x.Slice(100, 300)})
			p.AllReduce(sums.Slice(0, 1000))
			p.Join()
			p.Join()
			measured[rank], failed[rank] = p.Profile()
			if again, err := p.Profile(); len(again) != 0 || err != nil {
				t.Errorf("measured %v twice (%v)", again, err)
			}
		})
	}
	wait.Wait()
	want := map[string]Operation{
		"AllReduce": {Category: Exchanges, Calls: 2, Bytes: 8 * 6000},
		"Broadcast": {Category: Exchanges, Calls: 1, Bytes: 4 * 300, Float: true},
		"Join":      {Category: Waiting, Calls: 1},
	}
	for rank, list := range measured {
		if len(list) != len(want) || failed[rank] != nil {
			t.Errorf("rank %d measured %+v (%v)", rank, list, failed[rank])
		}
		for _, o := range list {
			w := want[o.Name]
			w.Name, w.Time = o.Name, o.Time
			if o != w || o.Time <= 0 {
				t.Errorf("rank %d measured %+v, want %+v", rank, o, w)
			}
		}
	}
}

// Why exchanges failed is what a profile of them says.
func TestProfileOfFailedExchanges(t *testing.T) {
	c := ring(t, 2)[0].Communicator.(ExchangeProfiler)
	cause := errors.New("rank 1 was lost")
	c.Abort(cause)
	if _, err := c.Profile(); !errors.Is(err, cause) {
		t.Errorf("the profile of exchanges that failed says %v", err)
	}
}

// A communicator that measures by itself is not measured on the host.
func TestOfCommunicator(t *testing.T) {
	c := NewCommunicator(cpu.NewCommunicator(0, 1, nil, nil))
	if got := OfCommunicator(kernels.Communicator(c)); got != ExchangeProfiler(c) {
		t.Errorf("%T was wrapped in %T", c, got)
	}
}
