package bustest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// Verdict is what becomes of a message.
type Verdict int

// The verdicts.
const (
	Pass Verdict = iota
	Drop         // the client believes that the message was sent
	Cut          // the client's connection ends before the message reaches the server
)

// Relay lies between clients and an event server, and asks before it passes a message on.
type Relay struct {
	URL string // for the clients

	server string
	judge  func(subject string, payload []byte) Verdict
}

// NewRelay starts a relay to the server at a URL for the length of the test. judge is called with every message that
// a client sends, in order for each client; it may wait.
func NewRelay(t *testing.T, server string, judge func(subject string, payload []byte) Verdict) *Relay {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := &Relay{URL: "nats://" + l.Addr().String(), server: u.Host, judge: judge}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", r.server)
			if err != nil {
				client.Close()
				continue
			}
			go func() { _, _ = io.Copy(client, server); client.Close() }()
			go func() { r.toServer(server, client); client.Close(); server.Close() }()
		}
	}()
	return r
}

// toServer passes on what a client sends (https://docs.nats.io/reference/reference-protocols/nats-protocol).
func (r *Relay) toServer(server io.Writer, client io.Reader) {
	from := bufio.NewReaderSize(client, 1<<16)
	for {
		line, err := from.ReadBytes('\n')
		if err != nil {
			return
		}
		words := strings.Fields(string(line))
		if len(words) > 2 && (words[0] == "PUB" || words[0] == "HPUB") {
			size, err := strconv.Atoi(words[len(words)-1])
			if err != nil {
				return
			}
			message := make([]byte, size+len("\r\n"))
			if _, err := io.ReadFull(from, message); err != nil {
				return
			}
			payload := bytes.TrimSuffix(message, []byte("\r\n"))
			if words[0] == "HPUB" {
				headers, err := strconv.Atoi(words[len(words)-2])
				if err != nil || headers > len(payload) {
					return
				}
				payload = payload[headers:]
			}
			switch r.judge(words[1], payload) {
			case Cut:
				return
			case Drop:
				continue
			}
			line = append(line, message...)
		}
		if _, err := server.Write(line); err != nil {
			return
		}
	}
}
