//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"bitnet1/kernels"
	"bitnet1/kernels/cuda/nccl"
	"bitnet1/kernels/timing"

	"gorgonia.org/cu"
)

// HasNCCL says why the GPUs of this machine cannot exchange anything, or nothing.
func HasNCCL() error { return nccl.Load() }

// NewID returns what all ranks have to be given to find one another. The process that calls it has to be one of them.
func NewID() ([]byte, error) { return nccl.NewID() }

// Communicator joins GPUs of one host, each in a process or at least a Device of its own, through NCCL. Exchanges are
// enqueued on a stream beside the device's, whose blocks are first to be given a multiprocessor: each waits for that of
// another rank and for nothing else, and holds its multiprocessor for as long.
type Communicator struct {
	device       *Device
	rank, ranks  int
	stream       cu.Stream
	begin, ended cu.Event
	begun        bool // exchanges were enqueued that Join has not waited for
	profile      *profile

	lock sync.Mutex // of what follows: Abort ends comm while others may call it
	comm *nccl.Comm
	err  error // once it is set, Abort alone uses comm, stream and events
}

var _ kernels.Communicator = (*Communicator)(nil)

// NewCommunicator makes the device one of several ranks. It waits until all ranks have called it. Abort frees it, and
// has to be called before the device is closed.
func (d *Device) NewCommunicator(id []byte, rank, ranks int) (*Communicator, error) {
	release, err := d.current()
	if err != nil {
		return nil, err
	}
	defer release()
	c := &Communicator{device: d, rank: rank, ranks: ranks}
	if err := c.open(id); err != nil {
		return nil, fmt.Errorf("CUDA device %d: rank %d of %d: %w", d.index, rank, ranks, advise(err))
	}
	return c, nil
}

func (c *Communicator) open(id []byte) (err error) {
	_, first, err := cu.StreamPriorityRange()
	if err == nil {
		c.stream, err = cu.MakeStreamWithPriority(first, cu.NonBlocking)
	}
	if err != nil {
		return fmt.Errorf("stream of exchanges: %w", err)
	}
	for _, e := range []*cu.Event{&c.begin, &c.ended} {
		if *e, err = cu.MakeEvent(cu.DisableTiming); err != nil {
			return fmt.Errorf("event: %w", err)
		}
	}
	if c.comm, err = nccl.InitRank(id, c.rank, c.ranks); err != nil {
		return err
	}
	index, err := c.comm.Device()
	if err == nil && index != c.device.index {
		err = fmt.Errorf("NCCL has joined device %d in its place", index)
	}
	if err != nil {
		c.Abort(err)
	}
	return err
}

// Rank is the rank of this process.
func (c *Communicator) Rank() int { return c.rank }

// Ranks is the number of ranks.
func (c *Communicator) Ranks() int { return c.ranks }

// Err is why exchanges fail, or nil.
func (c *Communicator) Err() error {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.err
}

// Abort ends the exchanges, those that wait for a lost rank included.
func (c *Communicator) Abort(cause error) {
	c.lock.Lock()
	first := c.err == nil
	if first {
		c.err = cause
	}
	c.lock.Unlock()
	if !first {
		return
	}
	release, err := c.device.current()
	if err != nil { // the device is lost, and with it all that is to be freed
		return
	}
	defer release()
	_ = errors.Join(c.comm.Abort(), c.stream.Destroy(), cu.DestroyEvent(&c.begin), cu.DestroyEvent(&c.ended))
}

// AllReduce enqueues a sum.
func (c *Communicator) AllReduce(x kernels.Longs) {
	c.enqueue(timing.AllReduceOperation(x), func(stream uintptr) error {
		return c.comm.AllReduce(uintptr(int64s(x, 0)), x.Len(), stream)
	})
}

// Broadcast enqueues broadcasts, as one kernel.
func (c *Communicator) Broadcast(all ...kernels.Broadcast) {
	c.enqueue(timing.BroadcastOperation(all), func(stream uintptr) error {
		return nccl.Group(func() error {
			for _, b := range all {
				if err := c.comm.Broadcast(uintptr(float32s(b.X, 0)), b.X.Len(), b.Root, stream); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// enqueue enqueues an exchange behind everything that the device has enqueued so far. Its failure is that of the
// communicator, not of the device, whose memory stays as it is.
func (c *Communicator) enqueue(o timing.Operation, exchange func(stream uintptr) error) {
	if o.Bytes == 0 || c.device.err != nil {
		return
	}
	c.do(o.Name, func() error {
		if c.device.recording {
			return errors.New("a graph is being recorded, which cannot hold exchanges")
		}
		if err := c.begin.Record(c.device.stream); err != nil {
			return err
		}
		if err := c.stream.Wait(c.begin, 0); err != nil {
			return err
		}
		c.begun = true
		return c.marked(c.stream, o, func() error { return exchange(*(*uintptr)(unsafe.Pointer(&c.stream))) })
	})
}

// do calls f, which may use comm, unless there was a failure before. An error of f ends the communicator.
func (c *Communicator) do(what string, f func() error) {
	if err := c.locked(f); err != nil {
		c.Abort(fmt.Errorf("CUDA device %d: rank %d of %d: %s: %w", c.device.index, c.rank, c.ranks, what, advise(err)))
	}
}

func (c *Communicator) locked(f func() error) error {
	release, err := c.device.current()
	if err != nil {
		return err
	}
	defer release()
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.err != nil {
		return nil
	}
	return f()
}

// pause lets 20 µs pass before Join looks again, 70 with the kernel's slack; a step takes a thousand times as long.
// time.Sleep would let up to a millisecond pass: where a process is idle, Go waits for timers in whole ones.
func pause() {
	t := syscall.NsecToTimespec(20_000)
	_ = syscall.Nanosleep(&t, nil) // interrupted, it is only shorter
}

// Join waits for the exchanges that were begun, or for the first failure. It cannot leave the waiting to the device:
// whether what follows may be computed is only known when they are done.
func (c *Communicator) Join() {
	if !c.begun {
		return
	}
	c.begun = false
	wait := timing.Operation{Name: "Join", Category: timing.Waiting}
	c.do("Join", func() error {
		if err := c.marked(c.device.stream, wait, func() error { return nil }); err != nil {
			return err
		}
		return c.ended.Record(c.stream)
	})
	for done := false; !done && c.Err() == nil; {
		c.do("Join", func() (err error) {
			done, err = c.done()
			return err
		})
		if !done {
			pause()
		}
	}
}

// done reports whether the exchanges before ended was recorded are done.
func (c *Communicator) done() (bool, error) {
	err := c.ended.Query()
	if err == nil || errors.Is(err, cu.NotReady) {
		return err == nil, c.comm.AsyncError()
	}
	return false, err
}
