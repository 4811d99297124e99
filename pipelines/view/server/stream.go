package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"bitnet1/pipelines/view/index"
	"bitnet1/shared/plot"
)

// messageSize is how long a message of a stream is at most, about, in bytes. After the first ones, which bring what is
// there already, a stream sends one message a tick.
const messageSize = 40 << 10

// stream sends messages to a page ("server-sent events").
type stream struct {
	w      http.ResponseWriter
	r      *http.Request
	silent int // ticks without a message
}

func newStream(w http.ResponseWriter, r *http.Request) *stream {
	w.Header().Set("Content-Type", "text/event-stream")
	return &stream{w: w, r: r}
}

// send sends a message; it reports false when the page is gone.
func (s *stream) send(event string, v any) bool {
	data, err := json.Marshal(v)
	if err != nil {
		return false
	}
	return s.write(fmt.Sprintf("event: %s\ndata: %s\n\n", event, data))
}

func (s *stream) write(text string) bool {
	s.silent = 0
	if _, err := s.w.Write([]byte(text)); err != nil {
		return false
	}
	return http.NewResponseController(s.w).Flush() == nil
}

// pause waits for the next tick; it reports false when the page is gone.
func (s *stream) pause(d time.Duration) bool {
	if s.silent++; s.silent > 20 && !s.write(": nothing new\n\n") {
		return false
	}
	select {
	case <-s.r.Context().Done():
		return false
	case <-time.After(d):
		return true
	}
}

// soon is how long a stream waits for more of what is being read for the first time.
const soon = 30 * time.Millisecond

// rowsAtOnce is how many rows a message has at most.
const rowsAtOnce = 40

// runs streams the list of runs: those there are, the latest first, and then what changes.
func (s *Server) runs(w http.ResponseWriter, r *http.Request) {
	defer s.watch()()
	to := newStream(w, r)
	if !to.send("hello", map[string]any{"data": s.name, "colors": plot.Palette}) {
		return
	}
	version, columns, parameters, ready := uint64(0), 0, 0, false
	for {
		wasReady := s.index.Ready() // before the rows are read, which are all of them then
		rows, last, more := s.index.Changes(version, rowsAtOnce)
		newReady := wasReady && !more && !ready
		if len(rows) > 0 || newReady {
			ready = ready || newReady
			message := map[string]any{"rows": rows, "total": s.index.Count(), "ready": ready,
				"columns": s.index.Columns(columns), "parameters": s.index.Parameters(parameters)}
			columns += len(message["columns"].([]index.Column))
			parameters += len(message["parameters"].([][2]string))
			version = last
			if !to.send("runs", message) {
				return
			}
		}
		wait := s.tick
		if !ready && more {
			wait = 0
		} else if !ready {
			wait = soon
		}
		if !to.pause(wait) {
			return
		}
	}
}

// sent is what a page has of a run's curves.
type sent struct {
	changed, restarted int
	marks              int
	lines              map[string]sentLine // by key
}

type sentLine struct {
	final int   // points that will not change
	done  int32 // step of the last of them
}

// asked is a request for curves.
type asked struct {
	names  []string // of runs
	over   string   // the axis
	keys   []string // what is drawn
	points int      // of a line
	bands  bool     // with the lowest and the highest values
}

// Limits of curves.
const (
	allPoints   = 40000 // of all curves together
	fewPoints   = 50    // of each
	bandsUpTo   = 16    // curves
	rememberFor = time.Minute
)

func (s *Server) asked(r *http.Request) (a asked, err error) {
	q := r.URL.Query()
	var numbers []int
	for text := range strings.SplitSeq(q.Get("runs"), ",") {
		if n, err := strconv.Atoi(text); err == nil {
			numbers = append(numbers, n)
		}
	}
	a.names, a.over = s.index.Names(numbers), q.Get("over")
	if a.over != index.OverSteps && a.over != index.OverTokens && a.over != index.OverSeconds {
		return a, fmt.Errorf("over=%s: use %s, %s or %s", a.over, index.OverSteps, index.OverTokens, index.OverSeconds)
	}
	for _, key := range index.Keys() {
		for _, want := range q["y"] {
			if want == key {
				a.keys = append(a.keys, key)
			}
		}
	}
	if len(a.keys) == 0 {
		return a, fmt.Errorf("y=%s: use any of %s", q.Get("y"), strings.Join(index.Keys(), ", "))
	}
	a.points, _ = strconv.Atoi(q.Get("points"))
	a.points = max(fewPoints, min(a.points, allPoints/max(len(a.names), 1)))
	a.bands = len(a.names) <= bandsUpTo
	return a, nil
}

// curves streams the curves of runs: what there is, and then what is new.
func (s *Server) curves(w http.ResponseWriter, r *http.Request) {
	a, err := s.asked(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer s.watch()()
	release := s.index.Watch(a.names)
	defer time.AfterFunc(rememberFor, release) // the page may ask for them again, and others
	to, c := newStream(w, r), &curveStream{asked: a, index: s.index, have: make([]sent, len(a.names))}
	for first := true; r.Context().Err() == nil; {
		if message := c.message(); len(message) > 0 && !to.send("curves", message) {
			return
		}
		if first && c.next > 0 {
			continue // there is more of what was there
		}
		if first && !to.send("whole", len(a.names)) {
			return
		}
		if first = false; !to.pause(s.tick) {
			return
		}
	}
}

// curveStream is the curves that a page has asked for, and what it has of them.
type curveStream struct {
	asked
	index *index.Index
	have  []sent // by run
	next  int    // run to look at
}

// message is what the page lacks, of as many runs as one message has room for; next is the run that comes after them.
func (c *curveStream) message() (message []piece) {
	for size, n := 0, len(c.names); n > 0 && size < messageSize; n-- {
		c.index.WithCurve(c.names[c.next], func(number int, of *index.Curve) {
			if p, changed := c.pieceOf(number, of, &c.have[c.next]); changed {
				message, size = append(message, p), size+p.size()
			}
		})
		if c.next = (c.next + 1) % len(c.names); c.next == 0 {
			break
		}
	}
	return message
}
