// Package server serves the page that shows a data directory, and what the page asks for. It answers GET and nothing
// else, and only requests that name the machine by its address: a page of another site whose name was made to point
// here ("DNS rebinding") is refused.
package server

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"bitnet1/pipelines/view/index"
	"bitnet1/shared/run/web"
)

//go:embed page
var files embed.FS

// Server answers requests about one data directory. It looks for changes while somebody watches.
type Server struct {
	index  *index.Index
	name   string   // of the data directory
	hosts  []string // names by which requests may call the machine, besides its addresses and localhost
	tick   time.Duration
	routes *http.ServeMux

	refreshing sync.Mutex
	mu         sync.Mutex
	watching   int // open streams
	stop       context.CancelFunc
}

// New returns a server for what x knows of the data directory that people call name.
func New(x *index.Index, name string, hosts ...string) *Server {
	s := &Server{index: x, name: name, hosts: hosts, tick: time.Second, routes: http.NewServeMux()}
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	s.routes.Handle("GET /", http.FileServerFS(page))
	s.routes.HandleFunc("GET /runs", s.runs)
	s.routes.HandleFunc("GET /curves", s.curves)
	s.routes.HandleFunc("GET /run/{run}", answer(func(r *http.Request) (any, error) {
		return x.Details(r.PathValue("run"))
	}, "no-store"))
	s.routes.HandleFunc("GET /heads/{digest}", answer(func(r *http.Request) (any, error) {
		return x.HeatMap(r.PathValue("digest"))
	}, forever))
	s.routes.HandleFunc("GET /text/{digest}", s.text)
	return s
}

// forever is for artifacts, which their digests name.
const forever = "private, max-age=31536000, immutable"

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "+
		"img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	if !web.Calls(r, s.hosts...) {
		http.Error(w, "this program answers requests to an IP address or to localhost alone; start it with --addr NAME:PORT "+
			"to give it another name", http.StatusMisdirectedRequest)
		return
	}
	s.routes.ServeHTTP(w, r)
}

// answer answers a request with JSON.
func answer(make func(*http.Request) (any, error), cache string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := make(r)
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", cache)
		_ = json.NewEncoder(w).Encode(v) // the client may be gone
	}
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if errors.Is(err, index.ErrUnknown) || errors.Is(err, fs.ErrNotExist) {
		status = http.StatusNotFound
	}
	http.Error(w, err.Error(), status)
}

func (s *Server) text(w http.ResponseWriter, r *http.Request) {
	text, err := s.index.Text(r.PathValue("digest"))
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", forever)
	_, _ = w.Write(text) // the client may be gone
}

// Refresh looks for changes, one caller at a time.
func (s *Server) Refresh() error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	return s.index.Refresh()
}

// watch looks for changes at every tick while anybody watches, until the caller calls leave.
func (s *Server) watch() (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watching++; s.watching == 1 {
		var ctx context.Context
		ctx, s.stop = context.WithCancel(context.Background())
		go func() {
			for ctx.Err() == nil {
				_ = s.Refresh() // a directory that cannot be read now is read at the next tick
				select {
				case <-ctx.Done():
				case <-time.After(s.tick):
				}
			}
		}()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.watching--; s.watching == 0 {
			s.stop()
		}
	}
}
