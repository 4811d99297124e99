// Package lease lets one holder at a time, among all hosts that share a bucket, change a state. A holder that was
// paused or cut off for too long loses the lease, and nothing that it writes afterwards is taken.
//
// The state is a log of entries, <prefix>/000001, <prefix>/000002, …, of which the last one counts. Each entry is
// created on the condition that it is not there, by whoever read the entry before. The number of an entry is therefore
// a fencing token that the storage itself checks: of two writers that go on from one entry, one is refused. Entries are
// never removed, not even when the state is begun anew.
//
// No clock is compared with another one. A holder changes <prefix>/alive while it lives. Whoever waits takes the lease
// when alive has not changed for as long as Expiry by its own clock.
package lease

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"time"

	"bitnet1/shared/run/bucket"
	"bitnet1/shared/run/event"
)

// Expiry is how long a holder may give no sign of life, as whoever waits for the lease sees it. A holder gives one five
// times as often.
const Expiry = 15 * time.Second

// Errors of this package.
var (
	ErrHeld = errors.New("another process holds the lease")
	ErrLost = errors.New("another process has taken the lease over")
)

// Lease is the right to change the state under a prefix, once Take has got it.
type Lease struct {
	bucket *bucket.Bucket
	prefix string
	id     string

	mu     sync.Mutex
	number int // of the last entry that is known
	last   entry
	held   bool
	beats  int
	lost   chan struct{}
	end    chan struct{}
	heart  sync.WaitGroup
}

// entry is what is written: the state, and who holds the lease.
type entry struct {
	Holder string `msgpack:"holder"` // "": nobody
	Place  string `msgpack:"place"`  // the data directory of who wrote it
	State  []byte `msgpack:"state"`
}

// Read returns the lease under prefix, not taken, with the state that is there.
func Read(b *bucket.Bucket, prefix string) (*Lease, error) {
	l := &Lease{bucket: b, prefix: prefix, id: rand.Text(), lost: make(chan struct{}), end: make(chan struct{})}
	return l, l.read()
}

// State is the last state that is known; nil where none was written.
func (l *Lease) State() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.State
}

// IsOwn reports whether the last state was written in this data directory.
func (l *Lease) IsOwn() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.Place == l.bucket.Place()
}

func (l *Lease) key(number int) string { return path.Join(l.prefix, fmt.Sprintf("%06d", number)) }

// read finds the last entry.
func (l *Lease) read() error {
	all, err := l.bucket.List(l.prefix + "/0")
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return nil
	}
	last := all[len(all)-1].Key
	b, err := l.bucket.Get(last)
	if err != nil {
		return err
	}
	if err := event.Unmarshal(b, &l.last); err != nil {
		return fmt.Errorf("%s: %w", last, err)
	}
	_, err = fmt.Sscanf(path.Base(last), "%d", &l.number)
	return err
}

// Take takes the lease, unless another process holds it, and keeps it until Release. The caller is the only process of
// its data directory that asks: an entry of the same directory is of a process that has died.
func (l *Lease) Take() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last.Holder != "" && l.last.Place != l.bucket.Place() {
		silent, err := l.silent()
		if err != nil {
			return err
		}
		if !silent {
			return ErrHeld
		}
	}
	err := l.append(entry{Holder: l.id, State: l.last.State})
	if errors.Is(err, ErrLost) {
		return ErrHeld // another one was faster
	}
	if err != nil {
		return err
	}
	l.held = true
	_ = l.beat() // the next one comes soon
	l.heart.Go(l.live)
	return nil
}

// Write changes the state. The error is ErrLost where the lease is no longer held.
func (l *Lease) Write(state []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held {
		return ErrLost
	}
	return l.append(entry{Holder: l.id, State: state})
}

// Finish is Write of the last state, which gives the lease back.
func (l *Lease) Finish(state []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held {
		return ErrLost
	}
	err := l.append(entry{State: state})
	if err == nil {
		l.held = false
	}
	return err
}

// append must be called under the lock.
func (l *Lease) append(e entry) error {
	e.Place = l.bucket.Place()
	b, err := event.Marshal(e)
	if err != nil {
		return err
	}
	err = l.bucket.Create(l.key(l.number+1), b)
	if errors.Is(err, bucket.ErrExists) {
		l.lose()
		return ErrLost
	}
	if err == nil {
		l.number, l.last = l.number+1, e
	}
	return err
}

func (l *Lease) lose() {
	if l.held {
		l.held = false
		close(l.lost)
	}
}

// Lost is closed when another process has taken the lease over.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Release gives the lease back, so that nobody waits for it. A lease that is not held, or is lost, stays as it is.
func (l *Lease) Release() {
	l.mu.Lock()
	if l.held {
		l.held = false
		_ = l.append(entry{State: l.last.State}) // otherwise it expires
	}
	select {
	case <-l.end:
	default:
		close(l.end)
	}
	l.mu.Unlock()
	l.heart.Wait()
}

// live gives signs of life, and notices that the lease is lost.
func (l *Lease) live() {
	tick := time.NewTicker(Expiry / 5)
	defer tick.Stop()
	for {
		select {
		case <-l.end:
			return
		case <-l.lost:
			return
		case <-tick.C:
		}
		l.mu.Lock()
		next := l.key(l.number + 1)
		if _, err := l.bucket.Size(next); err == nil {
			l.lose()
		}
		if l.held {
			_ = l.beat() // without one, another process may take over, which the next entry would show
		}
		l.mu.Unlock()
	}
}

func (l *Lease) beat() error {
	l.beats++
	return l.bucket.Put(path.Join(l.prefix, "alive"), fmt.Appendf(nil, "%s %d\n", l.id, l.beats))
}

// sighting is when a sign of life was first seen.
type sighting struct {
	sign  string
	since time.Time
}

var (
	sightings = map[string]sighting{} // by place and prefix
	sighted   sync.Mutex
)

// silent reports whether the holder has given no sign of life for as long as Expiry.
func (l *Lease) silent() (bool, error) {
	b, err := l.bucket.Get(path.Join(l.prefix, "alive"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	sign := fmt.Sprintf("%d %s", l.number, b)
	sighted.Lock()
	defer sighted.Unlock()
	at := l.bucket.Place() + " " + l.prefix
	if sightings[at].sign != sign {
		sightings[at] = sighting{sign, time.Now()}
		return false, nil
	}
	if time.Since(sightings[at].since) < Expiry {
		return false, nil
	}
	delete(sightings, at)
	return true, nil
}
