// Package processtest has what tests of other processes need. All packages may import it.
package processtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Patience is how long a test waits for something that has to come. It is no limit on how long something may take: a
// busy machine may let a process stand still for many seconds.
const Patience = 2 * time.Minute

// Eventually waits until ok holds.
func Eventually(t testing.TB, ok func() bool, what string, args ...any) {
	t.Helper()
	for limit := time.Now().Add(Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("never came: "+what, args...)
		}
	}
}

// Output is what a process has said so far. A process may write while others read.
type Output struct {
	lock sync.Mutex
	said bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.said.Write(b)
}

// String is all that was said.
func (o *Output) String() string {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.said.String()
}

var (
	givenLock sync.Mutex
	given     = map[string]bool{} // addresses that tests of this process have
)

// FreeAddress is an address of this host that no process listens on now. Its port is none that the system gives to
// whoever asks for any (from 32768 on Linux, 49152 elsewhere): the test may take its time until it listens.
func FreeAddress(t testing.TB) string {
	t.Helper()
	givenLock.Lock()
	defer givenLock.Unlock()
	const first, ports, tries = 20000, 12000, 100
	for range tries {
		address := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(ports))
		if given[address] {
			continue
		}
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			given[address] = true
			return address
		}
	}
	t.Fatalf("%d ports from %d on were tried, and none is free", tries, first)
	return ""
}
