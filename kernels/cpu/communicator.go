package cpu

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"unsafe"

	"bitnet1/kernels"
)

// Communicator joins processors in a ring: each rank sends to the next one and receives from the one before, over
// connections that the caller makes. A sum is cut into as many parts as there are ranks. The parts go round once to be
// summed and once more to be copied, so that every rank sends and receives each value less than twice (Patarasuk and
// Yuan 2009). A broadcast goes round from its root in pieces.
//
// Goroutines make the exchanges, one after the other, while the device goes on. Where a rank is lost, its neighbours
// see the end of their connections and close their others, so that every rank sees it.
type Communicator struct {
	rank, ranks int
	next, prior io.ReadWriteCloser
	last        chan struct{} // closed when the last exchange that was begun is done; nil: there was none
	received    []int64       // room for what is received to be added

	lock sync.Mutex
	err  error
}

var _ kernels.Communicator = (*Communicator)(nil)

// piece is how many values travel at a time where they are added or passed on: they stay in the cache.
const piece = 1 << 14

// NewCommunicator returns the communicator of a rank. next leads to the rank after it, prior to the rank before it, and
// a communicator of one rank has neither. Abort closes them.
func NewCommunicator(rank, ranks int, next, prior io.ReadWriteCloser) *Communicator {
	return &Communicator{rank: rank, ranks: ranks, next: next, prior: prior, received: make([]int64, piece)}
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

// Abort closes the connections.
func (c *Communicator) Abort(cause error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.err != nil {
		return
	}
	c.err = cause
	if c.ranks > 1 {
		_, _ = c.next.Close(), c.prior.Close()
	}
}

// Join waits for the exchanges that were begun.
func (c *Communicator) Join() {
	if c.last != nil {
		<-c.last
	}
}

// AllReduce begins a sum.
func (c *Communicator) AllReduce(x kernels.Longs) {
	c.begin(func() error { return c.allReduce(x.(longs)) })
}

// Broadcast begins broadcasts, which are made one after the other.
func (c *Communicator) Broadcast(all ...kernels.Broadcast) {
	for _, b := range all {
		c.begin(func() error { return c.broadcast(bytesOf(values(b.X)), b.Root) })
	}
}

// begin makes an exchange after those that were begun before. After a failure none is made.
func (c *Communicator) begin(exchange func() error) {
	before, done := c.last, make(chan struct{})
	c.last = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		if c.ranks == 1 || c.Err() != nil {
			return
		}
		if err := exchange(); err != nil {
			c.Abort(fmt.Errorf("rank %d of %d: exchange with its neighbours: %w", c.rank, c.ranks, err))
		}
	}()
}

// allReduce sums x up over the ranks.
func (c *Communicator) allReduce(x []int64) error {
	part := func(i int) []int64 {
		i = (i + 2*c.ranks) % c.ranks
		return x[len(x)*i/c.ranks : len(x)*(i+1)/c.ranks]
	}
	for s := range c.ranks - 1 {
		if err := c.pass(part(c.rank-s), part(c.rank-s-1), c.receiveSums); err != nil {
			return err
		}
	}
	for s := range c.ranks - 1 {
		if err := c.pass(part(c.rank-s+1), part(c.rank-s), c.receive); err != nil {
			return err
		}
	}
	return nil
}

// pass sends one part while it receives another. Where one fails, the other must not wait for ever.
func (c *Communicator) pass(out, in []int64, receive func([]int64) error) error {
	sent := make(chan error, 1)
	go func() {
		if len(out) == 0 {
			sent <- nil
			return
		}
		_, err := c.next.Write(bytesOf(out))
		if err != nil {
			_ = c.prior.Close()
		}
		sent <- err
	}()
	err := receive(in)
	if err != nil {
		_ = c.next.Close()
	}
	return errors.Join(err, <-sent)
}

func (c *Communicator) receive(x []int64) error {
	_, err := io.ReadFull(c.prior, bytesOf(x))
	return err
}

// receiveSums adds what is received to x.
func (c *Communicator) receiveSums(x []int64) error {
	for len(x) > 0 {
		n := min(len(x), piece)
		if err := c.receive(c.received[:n]); err != nil {
			return err
		}
		for i, v := range c.received[:n] {
			x[i] += v
		}
		x = x[n:]
	}
	return nil
}

// broadcast copies b from the root around the ring.
func (c *Communicator) broadcast(b []byte, root int) error {
	last := (c.rank+1)%c.ranks == root // who sends to nobody
	for len(b) > 0 {
		now := b[:min(len(b), 8*piece)]
		b = b[len(now):]
		if c.rank != root {
			if _, err := io.ReadFull(c.prior, now); err != nil {
				return err
			}
		}
		if !last {
			if _, err := c.next.Write(now); err != nil {
				return err
			}
		}
	}
	return nil
}

// bytesOf is the memory of x. Ranks are processes of one machine, so it needs no other form.
func bytesOf[T int64 | float32](x []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x)*int(unsafe.Sizeof(one)))
}
