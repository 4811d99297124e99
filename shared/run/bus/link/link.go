// Package link lies between the servers of a cluster and cuts them off from one another: for tests, and for runs that
// are disturbed.
package link

import (
	"net"
	"sync"
)

// Link passes connections on to an address. While it is cut, nothing passes, and connections stay open: as where a
// cable is pulled.
type Link struct {
	Address string // where it listens

	to       string
	listener net.Listener

	mu   sync.Mutex
	open chan struct{} // closed while bytes pass
}

// New starts a link to an address.
func New(to string) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Link{Address: listener.Addr().String(), to: to, listener: listener, open: make(chan struct{})}
	close(l.open)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(conn)
		}
	}()
	return l, nil
}

// Close takes no further connections.
func (l *Link) Close() {
	_ = l.listener.Close()
	l.Join()
}

// Cut lets nothing pass.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.open:
		l.open = make(chan struct{})
	default:
	}
}

// Join ends Cut. What was sent meanwhile arrives now, as TCP would send it again.
func (l *Link) Join() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.open:
	default:
		close(l.open)
	}
}

func (l *Link) passing() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

func (l *Link) serve(from net.Conn) {
	defer from.Close()
	<-l.passing()
	to, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer to.Close()
	var both sync.WaitGroup
	both.Go(func() { l.copy(to, from) })
	both.Go(func() { l.copy(from, to) })
	both.Wait()
}

func (l *Link) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		<-l.passing()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
