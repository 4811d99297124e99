package lease

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"bitnet1/shared/run/bucket"
	"bitnet1/shared/s3/s3test"
)

// host is the bucket as another host sees it, with a data directory of its own.
func host(t *testing.T, server *s3test.Server) *bucket.Bucket {
	t.Helper()
	dir := t.TempDir()
	if err := bucket.Attach(dir, server.URL("runs")); err != nil {
		t.Fatal(err)
	}
	return bucket.Of(dir)
}

func read(t *testing.T, b *bucket.Bucket) *Lease {
	t.Helper()
	l, err := Read(b, "jobs/one")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pause stops a lease's signs of life, as a stopped process or a cut network does, without its holder's knowledge.
func pause(l *Lease) {
	close(l.end)
	l.heart.Wait()
}

// letExpire makes others believe that they have waited for as long as Expiry since they first asked.
func letExpire() {
	sighted.Lock()
	defer sighted.Unlock()
	for at, s := range sightings {
		s.since = s.since.Add(-Expiry)
		sightings[at] = s
	}
}

func TestOneHolder(t *testing.T) {
	server := s3test.Start(t)
	var leases []*Lease
	for range 6 {
		leases = append(leases, read(t, host(t, server)))
	}
	var taken atomic.Int32
	var wg sync.WaitGroup
	for _, l := range leases {
		wg.Go(func() {
			switch err := l.Take(); {
			case err == nil:
				taken.Add(1)
			case !errors.Is(err, ErrHeld):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 {
		t.Errorf("%d of 6 have the lease", taken.Load())
	}
	for _, l := range leases {
		l.Release()
	}
	next := read(t, host(t, server))
	defer next.Release()
	if err := next.Take(); err != nil {
		t.Errorf("a lease that was given back: %v", err)
	}
}

func TestALateWriterChangesNothing(t *testing.T) {
	server := s3test.Start(t)
	first := read(t, host(t, server))
	if err := errors.Join(first.Take(), first.Write([]byte("first"))); err != nil {
		t.Fatal(err)
	}
	b := host(t, server)
	if err := read(t, b).Take(); !errors.Is(err, ErrHeld) {
		t.Fatalf("the holder lives: %v", err)
	}
	pause(first)
	letExpire()
	second := read(t, b)
	if string(second.State()) != "first" || second.IsOwn() {
		t.Errorf("the state is %q, of this host: %v", second.State(), second.IsOwn())
	}
	if err := second.Take(); err != nil {
		t.Fatalf("the holder is silent: %v", err)
	}
	defer second.Release()
	for name, late := range map[string]func([]byte) error{"write": first.Write, "finish": first.Finish} {
		if err := late([]byte("late")); !errors.Is(err, ErrLost) {
			t.Errorf("a late %s: %v", name, err)
		}
	}
	select {
	case <-first.Lost():
	default:
		t.Error("the late writer is not told")
	}
	if err := second.Finish([]byte("second")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, b).State(); string(got) != "second" {
		t.Errorf("the state is %q", got)
	}
}

// A holder that was stopped notices by itself that it is superseded, although it has nothing to write.
func TestASupersededHolderIsTold(t *testing.T) {
	server := s3test.Start(t)
	first := read(t, host(t, server))
	if err := first.Take(); err != nil {
		t.Fatal(err)
	}
	defer first.Release()
	b := host(t, server)
	second := read(t, b)
	defer second.Release()
	for errors.Is(second.Take(), ErrHeld) { // between two signs of life
		letExpire()
	}
	<-first.Lost()
}

// A sign of life begins the wait anew, however long it has lasted.
func TestASlowHolderKeepsTheLease(t *testing.T) {
	server := s3test.Start(t)
	first := read(t, host(t, server))
	if err := first.Take(); err != nil {
		t.Fatal(err)
	}
	defer first.Release()
	b := host(t, server)
	for range 3 {
		if err := read(t, b).Take(); !errors.Is(err, ErrHeld) {
			t.Fatalf("the holder lives: %v", err)
		}
		letExpire()
		first.mu.Lock()
		if err := first.beat(); err != nil {
			t.Fatal(err)
		}
		first.mu.Unlock()
	}
}

// A process that died is not waited for by the next one of its own data directory, which a lock keeps off living ones.
func TestTheNextProcessOfAHostTakesOverAtOnce(t *testing.T) {
	server := s3test.Start(t)
	b := host(t, server)
	dead := read(t, b)
	if err := dead.Take(); err != nil {
		t.Fatal(err)
	}
	pause(dead)
	next := read(t, b)
	defer next.Release()
	if err := next.Take(); err != nil {
		t.Error(err)
	}
	if err := dead.Write(nil); !errors.Is(err, ErrLost) {
		t.Errorf("the dead one writes: %v", err)
	}
}
