package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"bitnet1/pipelines/view/index"
	"bitnet1/pipelines/view/server"
	"bitnet1/shared/measure/runtest"
)

// serve serves a data directory.
func serve(t testing.TB, dir string) *httptest.Server {
	t.Helper()
	x, err := index.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(server.New(x, "here:data", "trainer.example"))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

// message is one of a stream.
type message struct {
	event string
	data  []byte
}

// listen calls next with the messages of a stream until next returns false.
func listen(t testing.TB, url string, next func(message) bool) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, r.Status)
	}
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, 1<<22)
	m := message{}
	for lines.Scan() {
		if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			m.event = event
		} else if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			m.data = []byte(data)
		} else if m.event != "" {
			if !next(m) {
				return
			}
			m = message{}
		}
	}
	t.Fatalf("%s has ended: %v", url, lines.Err())
}

func decode(t testing.TB, b []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%v in %.200s", err, b)
	}
}

type rowsMessage struct {
	Rows       []index.Row
	Total      int
	Ready      bool
	Columns    []index.Column
	Parameters [][2]string
}

type piece struct {
	Run   int
	Reset bool
	Lines map[string]struct {
		Keep      int
		X, Y      []float64
		Low, High []float64
	}
	Marks [][2]float64
}

func get(t *testing.T, method, url, host string) (status int, body string, h http.Header) {
	t.Helper()
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		request.Host = host
	}
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b), r.Header
}

var made = runtest.Run{Name: "run-1", Points: 100, Of: 200, Checkpoints: 2, Seed: 1, Rate: 0.002, Started: 5000}

// Requests that call the machine by a name of another site are refused, and so is whatever is not to be read.
func TestOnlyReadersThatMeanThisMachine(t *testing.T) {
	dir := t.TempDir()
	runtest.Write(t, dir, made)
	s := serve(t, dir)
	for host, want := range map[string]int{
		"": 200, "localhost": 200, "LOCALHOST:7177": 200, "127.0.0.1:1": 200, "[::1]:7177": 200, "192.0.2.7": 200,
		"trainer.example:80": 200, "evil.example": 421, "evil.example:7177": 421, "localhost.evil.example": 421,
		"127.0.0.1.evil.example": 421,
	} {
		if status, _, _ := get(t, "GET", s.URL+"/", host); status != want {
			t.Errorf("host %q: status %d, want %d", host, status, want)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		if status, _, _ := get(t, method, s.URL+"/runs", ""); status != http.StatusMethodNotAllowed {
			t.Errorf("%s is answered with status %d", method, status)
		}
	}
	for _, path := range []string{"/../server.go", "/%2e%2e/%2e%2e/etc/passwd", "/text/..%2f..%2fx", "/text/zz",
		"/run/nobody", "/heads/" + strings.Repeat("0", 64), "/text/" + strings.Repeat("0", 64), "/data"} {
		if status, body, _ := get(t, "GET", s.URL+path, ""); status != http.StatusNotFound {
			t.Errorf("%s: status %d, %.100s", path, status, body)
		}
	}
	_, page, h := get(t, "GET", s.URL+"/", "")
	if !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") ||
		h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v", h)
	}
	for _, word := range []string{`src="http`, `href="http`, "url(http", "@import"} {
		if strings.Contains(page, word) {
			t.Errorf("the page loads something from elsewhere: %s", word)
		}
	}
}

func TestRunsAreStreamed(t *testing.T) {
	dir := t.TempDir()
	runtest.Write(t, dir, made)
	s := serve(t, dir)
	seen := 0
	listen(t, s.URL+"/runs", func(m message) bool {
		switch seen++; seen {
		case 1:
			if m.event != "hello" || !strings.Contains(string(m.data), `"here:data"`) ||
				!strings.Contains(string(m.data), "#0072b2") {
				t.Errorf("%s %s", m.event, m.data)
			}
			return true
		case 2:
			var first rowsMessage
			decode(t, m.data, &first)
			if len(first.Rows) != 1 || first.Rows[0].Step != 1000 || len(first.Columns) != 6 || len(first.Parameters) == 0 {
				t.Errorf("%s", m.data)
			}
			grow(t, dir)
			return true
		}
		var later rowsMessage
		decode(t, m.data, &later)
		if len(later.Rows) == 0 { // all was read for the first time
			return true
		}
		if later.Rows[0].Step != 1010 || len(later.Columns)+len(later.Parameters) != 0 || len(m.data) > 1500 {
			t.Errorf("%s", m.data)
		}
		return false
	})
}

// grow takes a step.
func grow(t testing.TB, dir string) {
	t.Helper()
	for path, line := range map[string][]byte{runtest.LogFile(dir, made.Name): runtest.Line(made, 100),
		runtest.TimesFile(dir, made.Name): runtest.TimesLine(made, 100)} {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.Write(line)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A page gets a curve once, and then what is new.
func TestCurvesAreStreamed(t *testing.T) {
	dir := t.TempDir()
	runtest.Write(t, dir, made)
	s := serve(t, dir)
	listen(t, s.URL+"/runs", func(m message) bool { return m.event != "runs" }) // the run has a number now
	whole, after := false, 0
	listen(t, s.URL+"/curves?runs=0,7,x&over=tokens&y=train_bpc&y=rate&points=1000", func(m message) bool {
		if m.event == "whole" {
			whole = true
			grow(t, dir)
			return true
		}
		var pieces []piece
		decode(t, m.data, &pieces)
		p := pieces[0]
		loss, rate := p.Lines["train_bpc"], p.Lines["rate"]
		if !whole {
			if !p.Reset || len(loss.X) != 100 || loss.X[99] != 1000*4096 || len(loss.High) != 100 || len(rate.Y) != 100 ||
				len(p.Marks) != 2 {
				t.Errorf("%+v", p)
			}
			return true
		}
		if p.Reset || len(p.Marks) > 0 || loss.Keep != 100 || len(loss.X) > 1 {
			t.Errorf("what is new: %+v", p)
		}
		after += len(loss.X)
		return after == 0
	})
	for _, query := range []string{"runs=0&over=miles&y=rate", "runs=0&over=steps", "runs=0&over=steps&y=nothing"} {
		if status, body, _ := get(t, "GET", s.URL+"/curves?"+query, ""); status != 400 || !strings.Contains(body, "use") {
			t.Errorf("%s: status %d, %s", query, status, body)
		}
	}
}

// With very many runs, each with a log that grows, no message is long, and all curves come to an end.
func TestMessagesAreShort(t *testing.T) {
	dir := t.TempDir()
	var numbers []string
	const many = 150
	for i := range many {
		r := runtest.Run{Name: fmt.Sprint("run-", i), Points: 400, Checkpoints: 1, Seed: uint64(i), Rate: float64(i)}
		runtest.Write(t, dir, r)
		numbers = append(numbers, fmt.Sprint(i))
	}
	s := serve(t, dir)
	const longest = 50 << 10 // bytes
	rows, curves := 0, map[int]int{}
	listen(t, s.URL+"/runs", func(m message) bool {
		var r rowsMessage
		if m.event == "runs" {
			decode(t, m.data, &r)
		}
		if rows += len(r.Rows); len(m.data) > longest {
			t.Errorf("a message of %d rows has %d bytes", len(r.Rows), len(m.data))
		}
		return !r.Ready
	})
	of := strings.Join(numbers, ",")
	listen(t, s.URL+"/curves?over=steps&y=train_bpc&y=rate&points=1000&runs="+of, func(m message) bool {
		if len(m.data) > longest {
			t.Errorf("a message of curves has %d bytes", len(m.data))
		}
		var pieces []piece
		if m.event == "curves" {
			decode(t, m.data, &pieces)
		}
		for _, p := range pieces {
			curves[p.Run] += len(p.Lines["train_bpc"].Y)
		}
		return m.event != "whole"
	})
	if rows != many || len(curves) != many || curves[7] < 50 || curves[7] > 400 {
		t.Errorf("%d rows, %d curves, one of %d points", rows, len(curves), curves[7])
	}
}

func TestDetailsAreServed(t *testing.T) {
	dir := t.TempDir()
	runtest.Write(t, dir, made)
	s := serve(t, dir)
	listen(t, s.URL+"/runs", func(m message) bool { return m.event != "runs" })
	_, body, _ := get(t, "GET", s.URL+"/run/run-1", "")
	var d index.Details
	decode(t, []byte(body), &d)
	if len(d.Tables) != 1 || len(d.Heads) != 2 || len(d.Texts) != 2 {
		t.Fatalf("%s", body)
	}
	_, body, _ = get(t, "GET", s.URL+"/heads/"+d.Heads[0].Digest, "")
	var m index.HeatMap
	if decode(t, []byte(body), &m); m.Layers != 4 {
		t.Errorf("%s", body)
	}
	if _, body, h := get(t, "GET", s.URL+"/text/"+d.Texts[0].Digest, ""); !strings.Contains(body, "best of times") ||
		h.Get("Content-Type") != "text/plain; charset=utf-8" || !strings.Contains(h.Get("Cache-Control"), "immutable") {
		t.Errorf("%s %v", body, h)
	}
}
