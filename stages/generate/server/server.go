// Package server lets programs and people use a packed model over HTTP: OpenAI's API of models, completions and chat
// completions, the tokenizer endpoints of vLLM, metrics, and a page to chat in.
//
// A request passes four places. The guard (guard.go) turns away those without the token or from foreign pages, and
// bounds how many are inside at once. request.go reads a body, and refuses what is impossible. The pool (pool.go) gives
// the request a generator, of which there are few: each has the memory of a sequence. The generators compute their next
// tokens together (package generation), so a long text does not keep short ones waiting. completion.go and chat.go
// write the answer in one piece or as a stream; when the client goes away, the work ends with the token at work.
//
// The package computes nothing itself, and reads no command line.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"bitnet1/shared/data/documents"
	"bitnet1/shared/run/web"
	"bitnet1/stages/generate/generation"
)

// Options of a Server.
type Options struct {
	Name    string    // by which requests call the model
	Created time.Time // of the model
	Token   string    // that every request must bring as "Authorization: Bearer TOKEN"; empty: none need

	Template  documents.Template // how a conversation becomes a prompt
	Converses bool               // the model has learned conversations; the page begins with one

	Generators int   // texts that are written at once: each takes the memory of a sequence; default 4
	Queue      int   // further requests that wait; default 256
	MaxBody    int64 // bytes of a request; default 1 MiB
	MaxTokens  int   // that one text may have; default: as many as the context has room for

	Grace time.Duration // that requests have to end when the server does; default 10 s
}

func (o *Options) ensureDefaults() {
	if o.Generators == 0 {
		o.Generators = 4
	}
	if o.Queue == 0 {
		o.Queue = 256
	}
	if o.MaxBody == 0 {
		o.MaxBody = 1 << 20
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
}

// Server answers requests about one model.
type Server struct {
	Options
	model   *generation.Model
	pool    *pool
	inside  chan struct{} // has an element for each request that is admitted
	closing atomic.Bool
	metrics *metrics
	handler http.Handler
}

// New returns a server of an open model. The model must stay open as long as requests are answered.
func New(m *generation.Model, o Options) *Server {
	o.ensureDefaults()
	s := &Server{Options: o, model: m, pool: newPool(m.NewTurns(), o.Generators),
		inside: make(chan struct{}, o.Generators+o.Queue)}
	s.metrics = newMetrics(s)
	s.handler = s.routes()
	return s
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

func (s *Server) routes() http.Handler {
	routes := http.NewServeMux()
	known := make(map[string][]string) // methods of a path
	handle := func(method, path string, h http.HandlerFunc) {
		known[path] = append(known[path], method)
		routes.HandleFunc(method+" "+path, s.metrics.count(path, h))
	}
	handle("GET", "/{$}", servePage)
	handle("GET", "/health", s.health)
	handle("GET", "/metrics", s.guard(s.metrics.serve))
	handle("GET", "/v1/models", s.guard(s.models))
	handle("GET", "/v1/models/{model...}", s.guard(s.oneModel))
	handle("POST", "/v1/completions", s.guard(s.admit(s.completions)))
	handle("POST", "/v1/chat/completions", s.guard(s.admit(s.chat)))
	handle("GET", "/tokenizer_info", s.guard(s.tokenizerInfo))
	handle("POST", "/tokenize", s.guard(s.admit(s.tokenize)))
	handle("POST", "/detokenize", s.guard(s.admit(s.detokenize)))
	for path, methods := range known {
		routes.HandleFunc(path, s.metrics.count(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", methods[0])
			invalid("", "%s %s: use %s", r.Method, r.URL.Path, methods[0]).
				coded(http.StatusMethodNotAllowed, "method_not_allowed").write(w)
		}))
	}
	routes.HandleFunc("/", s.metrics.count("other", func(w http.ResponseWriter, r *http.Request) {
		invalid("", "%s %s: this server has no such path; it has /v1/models, /v1/completions and /v1/chat/completions",
			r.Method, r.URL.Path).coded(http.StatusNotFound, "unknown_url").write(w)
	}))
	own := http.NewCrossOriginProtection()
	own.SetDenyHandler(s.metrics.count("foreign", func(w http.ResponseWriter, r *http.Request) {
		invalid("", "a page of %.100q asks, and this server answers its own page alone", r.Header.Get("Origin")).
			coded(http.StatusForbidden, "forbidden_origin").write(w)
	}))
	return own.Handler(routes)
}

var errEnding = errors.New("the server is shutting down")

// Serve answers the requests of l until ctx ends. Then it accepts no more, and returns when those inside have ended, or
// after Grace has ended them. An error says why it could not serve.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	base, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	srv := web.Server(s)
	srv.BaseContext = func(net.Listener) context.Context { return base }
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(web.Listener(l)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	s.closing.Store(true)
	timer := time.AfterFunc(s.Grace, func() { end(errEnding) })
	defer timer.Stop()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Grace+web.WriteTime)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		return errors.Join(fmt.Errorf("ending the last requests: %w", err), srv.Close())
	}
	return nil
}

// health says whether the server answers requests.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if s.closing.Load() {
		overloaded(s.Grace, errEnding.Error()).write(w)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// modelInfo describes the model.
type modelInfo struct {
	ID          string `json:"id"`
	Object      string `json:"object"`
	Created     int64  `json:"created"`
	OwnedBy     string `json:"owned_by"`
	MaxModelLen int    `json:"max_model_len"` // tokens of its context, in the words of vLLM
	Converses   bool   `json:"converses"`     // see Options.Converses
}

func (s *Server) info() modelInfo {
	return modelInfo{s.Name, "model", s.Created.Unix(), "bitnet1", s.model.Config.Seq, s.Converses}
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Object string      `json:"object"`
		Data   []modelInfo `json:"data"`
	}{"list", []modelInfo{s.info()}})
}

func (s *Server) oneModel(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("model")
	if err := s.named(&name); err != nil {
		err.write(w)
		return
	}
	writeJSON(w, http.StatusOK, s.info())
}

// named returns an error where a request names another model than this one.
func (s *Server) named(name *string) *apiError {
	if name == nil || *name == s.Name {
		return nil
	}
	return invalid("model", "there is no model %.100q; this server has %q", *name, s.Name).
		coded(http.StatusNotFound, "model_not_found")
}
