package source

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answers is a server that gives the same answer to every request.
type answers struct {
	body, link string
	asked      int
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked++
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Link": {a.link}}, Request: r,
		Body: io.NopCloser(strings.NewReader(a.body))}, nil
}

// FuzzListing reads any answer as the hub's list of files, which may name a next page: the list ends, and no file of it
// is another dataset's or leaves its folder.
func FuzzListing(f *testing.F) {
	f.Add(`[{"type": "file", "path": "a/b.jsonl", "size": 3, "oid": "x", "lfs": {"oid": "y"}}, {"type": "directory"}]`, "")
	f.Add(`[{"type": "file", "path": "a.jsonl"}]`, `</api/datasets/me/web/tree/main?cursor=2>; rel="next"`) // itself
	f.Add(`[]`, `<https://else.where/%zz>; rel="next"`)
	f.Add(`[{"type": "file", "path": "../../other/x.jsonl", "size": -9223372036854775808}]`, `<?a=b>; rel="next", <`)
	f.Fuzz(func(t *testing.T, body, link string) {
		server := &answers{body: body, link: link}
		c := &Client{HTTP: &http.Client{Transport: server}, Retries: 1, Pause: time.Nanosecond}
		found, err := c.Find(context.Background(), "hf://datasets/me/web/**")
		if err != nil {
			return
		}
		for _, o := range found {
			if !strings.HasPrefix(o.Name, "me/web/") || strings.Contains("/"+o.Name+"/", "/../") || o.Size < 0 {
				t.Errorf("%+v", o)
			}
		}
		if server.asked > 2 {
			t.Errorf("%d pages where all are the same", server.asked)
		}
	})
}
