package timing

import (
	"sync"
	"time"

	"bitnet1/kernels"
)

// The categories of exchanges between ranks.
const (
	Exchanges Category = "exchanges"
	Waiting   Category = "waiting for exchanges" // when a device had nothing else to do
)

// ExchangeProfiler is a communicator that measures its exchanges where they are made, beside the device's operations.
// The time of an exchange begins when this rank is ready for it, so it includes the wait for other ranks.
type ExchangeProfiler interface {
	kernels.Communicator
	// StartProfile begins to measure.
	StartProfile()
	// Profile returns what was measured since StartProfile or the last call, the longest first: each kind of exchange,
	// and Join, whose time is that of Waiting. It is called after Join.
	Profile() ([]Operation, error)
}

// AllReduceOperation is what an ExchangeProfiler calls the exchange of that name.
func AllReduceOperation(x kernels.Longs) Operation {
	return Operation{Name: "AllReduce", Category: Exchanges, Bytes: 8 * int64(x.Len())}
}

// BroadcastOperation is what an ExchangeProfiler calls broadcasts that are made together.
func BroadcastOperation(all []kernels.Broadcast) Operation {
	o := Operation{Name: "Broadcast", Category: Exchanges, Float: true}
	for _, b := range all {
		o.Bytes += 4 * int64(b.X.Len())
	}
	return o
}

// OfCommunicator returns c itself if c measures its exchanges, and otherwise a Communicator around c.
func OfCommunicator(c kernels.Communicator) ExchangeProfiler {
	if p, ok := c.(ExchangeProfiler); ok {
		return p
	}
	return NewCommunicator(c)
}

// Communicator times the exchanges of the communicator inside by the host's clock. It begins each when those before are
// done, in a goroutine. So it is for devices whose operations are done when they return.
type Communicator struct {
	kernels.Communicator
	last chan struct{} // closed when the last exchange that was begun is done; nil: Join has waited for all

	lock  sync.Mutex
	total totals
}

// NewCommunicator returns a communicator around c.
func NewCommunicator(c kernels.Communicator) *Communicator {
	return &Communicator{Communicator: c, total: totals{}}
}

// StartProfile forgets what was measured.
func (c *Communicator) StartProfile() {
	c.lock.Lock()
	defer c.lock.Unlock()
	clear(c.total)
}

// Profile lists what was measured, the longest first, and why exchanges fail.
func (c *Communicator) Profile() ([]Operation, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.total.take(), c.Err()
}

// AllReduce times the exchange of that name.
func (c *Communicator) AllReduce(x kernels.Longs) {
	c.begin(AllReduceOperation(x), func() { c.Communicator.AllReduce(x) })
}

// Broadcast times the exchange of that name.
func (c *Communicator) Broadcast(all ...kernels.Broadcast) {
	c.begin(BroadcastOperation(all), func() { c.Communicator.Broadcast(all...) })
}

// begin makes an exchange after those that were begun before.
func (c *Communicator) begin(o Operation, exchange func()) {
	before, done := c.last, make(chan struct{})
	c.last = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		start := time.Now()
		exchange()
		c.Communicator.Join()
		o.Calls, o.Time = 1, time.Since(start)
		c.add(o)
	}()
}

// Join waits for the exchanges that were begun, and times that.
func (c *Communicator) Join() {
	if c.last == nil {
		return
	}
	start := time.Now()
	<-c.last
	c.last = nil
	c.add(Operation{Name: "Join", Category: Waiting, Calls: 1, Time: time.Since(start)})
}

func (c *Communicator) add(o Operation) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.total.add(o)
}
