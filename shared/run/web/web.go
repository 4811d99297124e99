// Package web is how programs serve HTTP: with the same limits and time-outs, and with one rule about the names by
// which a request may call this machine. It knows no paths and no tokens.
package web

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// Limits of every server.
const (
	headerTime  = 10 * time.Second // in which a client must have sent the header of its request
	idleTime    = 2 * time.Minute  // for which a connection is kept that no request uses
	maxHeader   = 32 << 10         // bytes
	connections = 512              // at once; further ones wait until another ends

	// WriteTime is how long a client may take to receive a part of its answer.
	WriteTime = 30 * time.Second
)

// Server returns a server of h with these limits, to serve what Listener returns. An answer may last as long as its
// client takes what is written.
func Server(h http.Handler) *http.Server {
	patiently := func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(patient(w, WriteTime), r) }
	return &http.Server{Handler: http.HandlerFunc(patiently),
		ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader}
}

// Listener returns l with a bound on the connections that are open at once: each takes a descriptor of the process,
// which other work of the process needs, too.
func Listener(l net.Listener) net.Listener { return netutil.LimitListener(l, connections) }

// patientWriter gives the client the same time for each part of an answer.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	time    time.Duration
}

func patient(w http.ResponseWriter, time time.Duration) *patientWriter {
	return &patientWriter{w, http.NewResponseController(w), time}
}

func (w *patientWriter) wait() { _ = w.control.SetWriteDeadline(time.Now().Add(w.time)) } // a writer of a test has none

// Write implements http.ResponseWriter.
func (w *patientWriter) Write(b []byte) (int, error) {
	w.wait()
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *patientWriter) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w *patientWriter) FlushError() error {
	w.wait()
	return w.control.Flush()
}

// Unwrap gives http.ResponseController what is below.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Calls reports whether a request with the header Host calls this machine by a name that it may use: an IP address,
// localhost, or one of the given names. The browser of somebody who visits a foreign page sends the name of that page,
// also where the name was made to lead here (DNS rebinding); an address cannot be made to lead elsewhere.
func Calls(r *http.Request, names ...string) bool {
	name := hostOf(r.Host)
	return net.ParseIP(name) != nil ||
		slices.ContainsFunc(append(names, "localhost"), func(known string) bool { return strings.EqualFold(known, name) })
}

// IsLoopback reports whether an address, HOST or HOST:PORT, is one that only this machine reaches.
func IsLoopback(address string) bool {
	host := hostOf(address)
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// hostOf is the host of an address, HOST or HOST:PORT, without the brackets of IPv6.
func hostOf(address string) string {
	host := address
	if h, _, err := net.SplitHostPort(address); err == nil {
		host = h
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}
