package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"bitnet1/shared/run/web"
)

// guard turns away requests without the token, and those that a foreign web page has its visitor's browser make.
func (s *Server) guard(h http.HandlerFunc) http.HandlerFunc {
	want := sha256.Sum256([]byte(s.Token))
	return func(w http.ResponseWriter, r *http.Request) {
		if s.Token == "" {
			if !web.Calls(r) {
				invalid("", "the host %.100q is not this machine's: without a token the server answers local programs alone",
					r.Host).coded(http.StatusForbidden, "forbidden_host").write(w)
				return
			}
			h(w, r)
			return
		}
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(given)) // of equal length, so that the time says nothing about the token
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			invalid("", "the request has not the token of this server: send it as Authorization: Bearer TOKEN").
				coded(http.StatusUnauthorized, "invalid_api_key").write(w)
			return
		}
		h(w, r)
	}
}

const (
	readTime  = 30 * time.Second // in which a client must have sent its request
	retryTime = 2 * time.Second  // after which a client that was turned away may try again
)

// admit bounds the requests that are inside, and reads their bodies.
func (s *Server) admit(h func(w http.ResponseWriter, r *http.Request, body []byte) *apiError) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.inside <- struct{}{}:
			defer func() { <-s.inside }()
		default:
			s.metrics.refused.Inc()
			overloaded(retryTime, fmt.Sprintf("%d requests are being answered or wait: try again later", cap(s.inside))).
				write(w)
			return
		}
		if s.closing.Load() {
			overloaded(s.Grace, errEnding.Error()).write(w)
			return
		}
		body, err := s.read(w, r)
		if err == nil {
			err = h(w, r, body)
		}
		if err != nil {
			err.write(w)
		}
	}
}

// read reads a request's body.
func (s *Server) read(w http.ResponseWriter, r *http.Request) ([]byte, *apiError) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(readTime)) // a writer of a test has none
	var b bytes.Buffer
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, s.MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, invalid("", "the request has more than %d bytes", large.Limit).
			coded(http.StatusRequestEntityTooLarge, "request_too_large")
	case err != nil:
		return nil, invalid("", "reading the request: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	return b.Bytes(), nil
}
