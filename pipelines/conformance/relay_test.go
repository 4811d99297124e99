package main

import (
	"net"
	"testing"
	"time"

	"bitnet1/shared/processtest"
)

// What a program sends arrives late while it is to, and a connection that has ended is forgotten.
func TestRelayDelaysWhatProgramsSend(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	r, err := newRelay("nats://" + server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer r.listener.Close()
	program, err := net.Dial("tcp", r.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	heard, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()

	const late = 500 * time.Millisecond
	r.delay(late)
	sent := time.Now()
	if _, err := program.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := heard.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(sent); took < late {
		t.Errorf("it arrived after %v, want %v later at least", took, late)
	}

	r.delay(0)
	program.Close()
	processtest.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.conns) == 0
	}, "the end of both connections")
}
