package web

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestNamesOfThisMachine(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:7177": true, "127.0.0.1:1": true, "[::1]:7177": true, "::1": true, "192.0.2.7": true,
		"trainer.example:80": true, "Trainer.Example": true, "evil.example": false, "evil.example:7177": false,
		"localhost.evil.example": false, "127.0.0.1.evil.example": false, "": false, ":80": false, "[": false,
	} {
		if got := Calls(&http.Request{Host: host}, "trainer.example"); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
	if Calls(&http.Request{Host: "trainer.example"}) {
		t.Error("a name counts that was not given")
	}
}

func TestAddressesOfThisMachineAlone(t *testing.T) {
	for address, want := range map[string]bool{
		"localhost": true, "localhost:80": true, "127.0.0.1": true, "127.9.9.9:80": true, "[::1]:80": true, "::1": true,
		"[::1]": true, "": false, ":80": false, "0.0.0.0:80": false, "[::]:80": false, "192.0.2.7": false,
		"a.example:80": false,
	} {
		if got := IsLoopback(address); got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
}

// dial sends text to a server.
func dial(t *testing.T, s *httptest.Server, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := fmt.Fprint(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// unlimited serves h as it is.
func unlimited(t *testing.T, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.Config, s.Listener = Server(h), Listener(s.Listener)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

const request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

func TestLongHeadersAreRefused(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the request came through") })
	conn := dial(t, s, "GET / HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, "431") {
		t.Errorf("%q %v", line, err)
	}
}

// A client that takes nothing of its answer does not keep it for ever, and one that takes a part now and then does.
func TestSlowClients(t *testing.T) {
	const patience = 200 * time.Millisecond
	ended := make(chan error, 1)
	s := unlimited(t, func(w http.ResponseWriter, r *http.Request) {
		to, part := patient(w, patience), []byte(strings.Repeat("x", 1<<20))
		for range 1000 {
			if _, err := to.Write(part); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	})
	dial(t, s, request)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a client that reads nothing has taken 1 GB")
		}
	case <-time.After(time.Minute):
		t.Error("the answer of a client that reads nothing does not end")
	}

	s = unlimited(t, func(w http.ResponseWriter, r *http.Request) {
		to := patient(w, patience)
		for range 4 {
			time.Sleep(patience / 2) // longer together than the time for a part
			if _, err := to.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			to.Flush()
		}
	})
	answer, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if n, err := bufio.NewReader(answer.Body).ReadString('!'); len(n) != 4 {
		t.Errorf("%q of an answer in four parts: %v", n, err)
	}
}

// Connections beyond the limit wait until another ends.
func TestConnectionsAreBounded(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	var open []net.Conn
	for range connections {
		open = append(open, dial(t, s, ""))
	}
	late := dial(t, s, request)
	answered := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(late).ReadString('\n')
		answered <- line
	}()
	select {
	case line := <-answered:
		t.Errorf("one more than the limit is answered: %q", line)
	case <-time.After(100 * time.Millisecond):
	}
	open[0].Close()
	if line := <-answered; !strings.Contains(line, "200") {
		t.Errorf("%q", line)
	}
}
