package bustest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// link passes connections on to an address. While it is cut, what is sent disappears, and connections stay open: as
// where a cable is pulled.
type link struct {
	address string // where it listens
	to      string

	mu   sync.Mutex
	open chan struct{} // closed while bytes pass
}

func newLink(t testing.TB, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{address: l.Addr().String(), to: to, open: make(chan struct{})}
	close(k.open)
	t.Cleanup(func() { _ = l.Close(); k.join() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go k.serve(conn)
		}
	}()
	return k
}

func (k *link) serve(from net.Conn) {
	defer from.Close()
	<-k.passing()
	to, err := net.Dial("tcp", k.to)
	if err != nil {
		return
	}
	defer to.Close()
	var both sync.WaitGroup
	both.Go(func() { k.copy(to, from) })
	both.Go(func() { k.copy(from, to) })
	both.Wait()
}

// copy passes bytes on. The bytes that arrive while the link is cut are passed on when it is joined again, as TCP would
// send them again.
func (k *link) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		<-k.passing()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil && err != io.EOF || n == 0 {
			return
		}
	}
}

func (k *link) passing() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.open
}

func (k *link) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open = make(chan struct{})
}

func (k *link) join() {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.open:
	default:
		close(k.open)
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
