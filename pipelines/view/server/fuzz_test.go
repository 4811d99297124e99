package server_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"bitnet1/pipelines/view/index"
	"bitnet1/pipelines/view/server"
	"bitnet1/shared/measure/runtest"
	"bitnet1/shared/run/artifact"
)

// FuzzRequest asks for any path, and for an artifact of any bytes: the answer is a page, a number or a refusal, and no
// failure of the server.
func FuzzRequest(f *testing.F) {
	dir := f.TempDir()
	runtest.Write(f, dir, made)
	x, err := index.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	store, err := artifact.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	s := server.New(x, "here:data")
	f.Add("GET", "/runs", "", []byte(`{"heads": [{"layer": 0, "head": 1, "ipmr": 0.5}]}`))
	f.Add("GET", "/curves?runs=0,1,-1&over=steps&y=train_bpc&points=99999999999", "localhost", []byte(`{}`))
	f.Add("GET", "/run/run-1", "127.0.0.1:7177", []byte(`{"heads": [{"layer": 16383, "head": 16383}]}`))
	f.Add("POST", "/text/../../etc/passwd", "evil.example", []byte("text"))
	f.Fuzz(func(t *testing.T, method, target, host string, report []byte) {
		ref, err := artifact.Put(store, "health", "application/json", "report.json", report)
		if err != nil {
			t.Fatal(err)
		}
		ended, end := context.WithCancel(t.Context()) // a stream is never waited for
		end()
		for _, target := range []string{target, "/heads/" + ref.Digest, "/text/" + ref.Digest} {
			r, err := http.NewRequestWithContext(ended, method, "http://localhost"+target, nil)
			if err != nil {
				continue
			}
			r.Host, r.RemoteAddr = host, "127.0.0.1:1"
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code == http.StatusInternalServerError && target[0:6] != "/heads" && target[0:5] != "/text" {
				t.Errorf("%s %q: status %d, %s", method, target, w.Code, w.Body)
			}
		}
	})
}
