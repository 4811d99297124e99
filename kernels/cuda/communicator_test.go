//go:build cuda

package cuda

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/fakecuda"
	"bitnet1/kernels/cuda/nccl"
	"bitnet1/kernels/devicetest"
	"bitnet1/kernels/timing"
)

// worlds are the numbers of ranks that this machine has a GPU for each of.
func worlds(t *testing.T) (list []int) {
	t.Helper()
	n, err := Count()
	if err == nil {
		err = HasNCCL()
	}
	if errors.Is(err, ErrNoDevice) || errors.Is(err, nccl.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for ranks := 1; ranks <= n; ranks *= 2 {
		list = append(list, ranks)
	}
	t.Logf("%d GPUs: worlds of %v", n, list)
	return list
}

// joined makes a world of the first GPUs.
func joined(t testing.TB, ranks int) []devicetest.Rank {
	t.Helper()
	id, err := NewID()
	if err != nil {
		t.Fatal(err)
	}
	world, failed := make([]devicetest.Rank, ranks), make(chan error, ranks)
	for rank := range world {
		go func() {
			d, err := Open(rank, Options{})
			if err != nil {
				failed <- err
				return
			}
			c, err := d.NewCommunicator(id, rank, ranks)
			world[rank] = devicetest.Rank{Device: d, Communicator: c}
			failed <- err
		}()
	}
	for range world {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		var wait sync.WaitGroup // NCCL's ranks of one process may wait for one another
		for _, r := range world {
			wait.Go(func() { r.Abort(errors.New("the test is over")) })
		}
		wait.Wait()
		for _, r := range world {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return world
}

func TestCommunicator(t *testing.T) {
	devicetest.RunCommunicator(t, joined, worlds(t)...)
}

// What NCCL reports ends exchanges, and leaves the device as it is.
func TestFailuresOfExchanges(t *testing.T) {
	for injected, want := range map[string]string{
		"ncclAllReduce:3":         "rank 0 of 1: AllReduce: NCCL error 3: internal error: what the fake said last",
		"ncclGroupEnd:3":          "rank 0 of 1: Broadcast: ncclGroupEnd: NCCL error 3: internal error",
		"ncclCommGetAsyncError:6": "rank 0 of 1: Join: NCCL error 6",
		"ncclCommInitRank:2":      "CUDA device 0: rank 0 of 1: ncclCommInitRank: NCCL error 2",
		"ncclCommCuDevice:1":      "CUDA device 0: rank 0 of 1: NCCL has joined device 1 in its place",
		"ncclGetUniqueId:2":       "ncclGetUniqueId: NCCL error 2",
		"ncclGetVersion:21703":    "libnccl.so.2 is NCCL 2.17.3: 2.18 or later is needed: ",
	} {
		t.Run(injected, func(t *testing.T) {
			said, err := onFake(t, "TestOneExchange", "FAKE_NCCL="+injected)
			if err == nil || !strings.Contains(said, want) {
				t.Errorf("an exchange that fails gave %v, want %s:\n%s", err, want, said)
			}
		})
	}
	if said, err := onFake(t, "TestOneExchange"); err != nil {
		t.Errorf("an exchange: %v:\n%s", err, said)
	}
}

// Without a GPU worlds of several ranks are tested on a library that stands in for CUDA.
func TestCommunicatorWithoutGPU(t *testing.T) {
	for _, test := range []string{"TestCommunicator", "TestExchangeInCapture", "TestExchangeProfile"} {
		if said, err := onFake(t, test); err != nil || !strings.Contains(said, "worlds of [1 2 4 8]") {
			t.Errorf("%s: %v:\n%s", test, err, said)
		}
	}
}

// onFake runs a test of this program on the library, and returns what it says.
func onFake(t *testing.T, test string, environment ...string) (said string, err error) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run", "^"+test+"$", "-test.timeout", "1m")
	cmd.Env = append(append(os.Environ(), fakecuda.Environment(t)...), append(environment, "BITNET1_FAKE_CUDA=1")...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestOneExchange is for TestFailuresOfExchanges.
func TestOneExchange(t *testing.T) {
	if os.Getenv("BITNET1_FAKE_CUDA") == "" {
		t.Skip("runs within TestFailuresOfExchanges")
	}
	r := joined(t, 1)[0]
	a := &kernels.Allocator{Device: r.Device}
	x, y := a.Longs(5), a.Floats(5)
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	r.AllReduce(x)
	r.Broadcast(kernels.Broadcast{X: y})
	r.Join()
	if err := r.Sync(); err != nil {
		t.Errorf("the device: %v", err)
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
}

// A graph cannot hold an exchange.
func TestExchangeInCapture(t *testing.T) {
	r := joined(t, worlds(t)[0])[0]
	x, err := r.NewLongs(5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Capture(func() { r.AllReduce(x) }); err != nil {
		t.Fatal(err)
	}
	if r.Err() == nil || !strings.Contains(r.Err().Error(), "cannot hold exchanges") {
		t.Errorf("an exchange in a graph gave %v", r.Err())
	}
}

// Exchanges of one kind are counted together, and Join where there was something to wait for.
func TestExchangeProfile(t *testing.T) {
	worlds := worlds(t)
	ranks := worlds[len(worlds)-1]
	want := map[string]timing.Operation{
		"AllReduce": {Category: timing.Exchanges, Calls: 2, Bytes: 8 * 6000},
		"Broadcast": {Category: timing.Exchanges, Calls: 1, Bytes: 4 * 300, Float: true},
		"Join":      {Category: timing.Waiting, Calls: 1},
	}
	var wait sync.WaitGroup
	for _, r := range joined(t, ranks) {
		wait.Go(func() {
			a := &kernels.Allocator{Device: r.Device}
			sums, x, c := a.Longs(5000), a.Floats(300), r.Communicator.(*Communicator)
			r.AllReduce(sums)
			r.Join()
			c.StartProfile()
			for range 2 { // as if the first were not there
				r.AllReduce(sums)
				r.Broadcast(kernels.Broadcast{X: x, Root: ranks - 1})
				r.AllReduce(sums.Slice(0, 1000))
				r.Join()
				r.Join()
				list, err := c.Profile()
				if len(list) != len(want) || err != nil || a.Err != nil {
					t.Errorf("rank %d measured %+v (%v, %v)", r.Rank(), list, err, a.Err)
				}
				for _, o := range list {
					w := want[o.Name]
					w.Name, w.Time = o.Name, o.Time
					if o != w || o.Time < 0 || o.Time == 0 && ranks > 1 && o.Category == timing.Exchanges {
						t.Errorf("rank %d measured %+v, want %+v", r.Rank(), o, w)
					}
				}
			}
		})
	}
	wait.Wait()
}
