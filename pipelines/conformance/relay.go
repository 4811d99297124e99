package main

import (
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// relay lies between a program and the event server, so that the two can be cut off from each other.
type relay struct {
	latency  atomic.Int64 // nanoseconds that each part of what the program sends takes
	listener net.Listener
	to       string

	mu    sync.Mutex
	away  bool
	conns map[net.Conn]bool
}

// newRelay listens for a server that is at an address such as nats://127.0.0.1:4222.
func newRelay(server string) (*relay, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, to: u.Host, conns: map[net.Conn]bool{}}
	go r.accept()
	return r, nil
}

func (r *relay) url() string { return "nats://" + r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		program, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.to)
		if err != nil || !r.keep(program, server) {
			program.Close()
			if err == nil {
				server.Close()
			}
			continue
		}
		go r.pass(program, server, server)
		go r.pass(server, program, slow{program, &r.latency})
	}
}

// keep takes two connections that belong together, unless the server is away.
func (r *relay) keep(a, b net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.away {
		r.conns[a], r.conns[b] = true, true
	}
	return !r.away
}

// pass copies what comes from one side, read as said, until either side ends.
func (r *relay) pass(to, from net.Conn, said io.Reader) {
	_, _ = io.Copy(to, said)
	to.Close()
	from.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, from)
}

// slow is what a program sends, which arrives late.
type slow struct {
	io.Reader
	latency *atomic.Int64
}

func (s slow) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	time.Sleep(time.Duration(s.latency.Load()))
	return n, err
}

// delay has everything that programs send arrive d later.
func (r *relay) delay(d time.Duration) { r.latency.Store(int64(d)) }

// cut ends all connections and takes no new ones, until mend.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = true
	for c := range r.conns {
		c.Close()
	}
}

func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = false
}

func (r *relay) close() {
	r.listener.Close()
	r.cut()
}
