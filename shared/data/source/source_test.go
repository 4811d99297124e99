package source

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// contents are bytes that nobody mistakes for others.
func contents(n int) []byte {
	b := make([]byte, n)
	random := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// quick is a client that does not wait long.
func quick() *Client { return &Client{Pause: time.Millisecond, Retries: 4} }

// serveFile answers as http.ServeContent does, with an entity tag.
func serveFile(w http.ResponseWriter, r *http.Request, data []byte) {
	sum := md5.Sum(data)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

// one finds the only object there is.
func one(t *testing.T, c *Client, location string) Object {
	t.Helper()
	found, err := c.Find(context.Background(), location)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", location, found, err)
	}
	return found[0]
}

func mustFetch(t *testing.T, c *Client, o Object, path string, want []byte) {
	t.Helper()
	if err := c.Fetch(context.Background(), o, path, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes instead of %d (%v)", len(got), len(want), err)
	}
}

func TestWeb(t *testing.T) {
	data := contents(300_000)
	address := serve(t, func(w http.ResponseWriter, r *http.Request) { serveFile(w, r, data) }) + "/books/a.jsonl"
	o := one(t, quick(), address)
	if o.Name != "books/a.jsonl" || o.URL != address || o.Size != int64(len(data)) || o.Version == "" {
		t.Errorf("%+v", o)
	}
	path := filepath.Join(t.TempDir(), "a")
	var last int64
	if err := quick().Fetch(context.Background(), o, path, func(done int64) { last = done }); err != nil ||
		last != o.Size {
		t.Errorf("%d of %d bytes reported, %v", last, o.Size, err)
	}
	mustFetch(t, quick(), o, path, data) // again: nothing is left to do
	if _, err := quick().Find(context.Background(), serve(t, http.NotFound)+"/x"); err == nil ||
		!strings.Contains(err.Error(), "404") {
		t.Errorf("a missing file: %v", err)
	}
	for _, bad := range []string{"ftp://host/x", "hf://models/a/b/c", "s3://"} {
		if _, err := quick().Find(context.Background(), bad); err == nil {
			t.Errorf("%s is found", bad)
		}
	}
}

// TestBrokenConnections: a server that breaks off, is busy and fails in turn gives the whole file in the end, no byte
// of it twice.
func TestBrokenConnections(t *testing.T) {
	data := contents(1_000_000)
	var requests, sent atomic.Int64
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		switch {
		case r.Method == http.MethodHead:
		case n%4 == 0:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		case n%4 == 1:
			w.WriteHeader(http.StatusBadGateway)
			return
		default:
			serveFile(&breaking{ResponseWriter: w, left: 90_000, sent: &sent}, r, data)
			return
		}
		serveFile(w, r, data)
	}) + "/x"
	o := one(t, quick(), address)
	mustFetch(t, quick(), o, filepath.Join(t.TempDir(), "x"), data)
	if sent.Load() > int64(len(data)) {
		t.Errorf("%d bytes sent for a file of %d", sent.Load(), len(data))
	}
	if requests.Load() < 12 {
		t.Errorf("%d requests", requests.Load())
	}
}

// breaking ends the connection after some bytes.
type breaking struct {
	http.ResponseWriter
	left int
	sent *atomic.Int64
}

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.ResponseWriter.Write(p[:b.left])
		b.sent.Add(int64(b.left))
		http.NewResponseController(b.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	b.left -= len(p)
	b.sent.Add(int64(len(p)))
	return b.ResponseWriter.Write(p)
}

func TestFetchGoesOn(t *testing.T) {
	data := contents(100_000)
	for name, ranges := range map[string]bool{"ranges": true, "no ranges": false} {
		var asked string
		address := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked = r.Header.Get("Range")
			if !ranges {
				r.Header.Del("Range")
			}
			serveFile(w, r, data)
		}) + "/x"
		o := one(t, quick(), address)
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, data[:40_000], 0o644); err != nil {
			t.Fatal(err)
		}
		mustFetch(t, quick(), o, path, data)
		if asked != "bytes=40000-" {
			t.Errorf("%s: asked for %q", name, asked)
		}
	}
}

func TestChangedFile(t *testing.T) {
	data := contents(1000)
	address := serve(t, func(w http.ResponseWriter, r *http.Request) { serveFile(w, r, data) }) + "/x"
	o := one(t, quick(), address)
	before := o.Digest()
	data = contents(1001)[:1000]
	err := quick().Fetch(context.Background(), o, filepath.Join(t.TempDir(), "x"), nil)
	if err == nil || !Permanent(err) || !strings.Contains(err.Error(), "changed") {
		t.Errorf("a changed file: %v", err)
	}
	if one(t, quick(), address).Digest() == before {
		t.Error("other contents have the same digest")
	}
}

func TestGivesUp(t *testing.T) {
	data := contents(1000)
	down := false
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if down {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		serveFile(w, r, data)
	}) + "/x"
	o := one(t, quick(), address)
	down = true
	told := 0
	c := quick()
	c.Retrying = func(err error, pause time.Duration) {
		if !strings.Contains(err.Error(), "source "+address+": ") || pause <= 0 {
			t.Errorf("trying again in %s: %v", pause, err)
		}
		told++
	}
	if err := c.Fetch(context.Background(), o, filepath.Join(t.TempDir(), "x"), nil); err == nil || Permanent(err) ||
		told != 4 {
		t.Errorf("%v, after %d retries", err, told)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.Retrying, c.Pause = func(error, time.Duration) { cancel() }, time.Hour
	if err := c.Fetch(ctx, o, filepath.Join(t.TempDir(), "x"), nil); err == nil || ctx.Err() == nil {
		t.Errorf("cancelled: %v", err)
	}
}

// A server may ask for a longer pause than would be made, but for no more than a minute; that pause is told.
func TestAPauseThatTheServerAsksFor(t *testing.T) {
	for after, want := range map[string]time.Duration{
		"0": 2 * time.Second, "7": 7 * time.Second, "3600": time.Minute, "soon": 2 * time.Second,
	} {
		address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", after)
			w.WriteHeader(http.StatusTooManyRequests)
		}) + "/x"
		ctx, stop := context.WithCancel(context.Background())
		var told []time.Duration
		c := quick()
		c.Pause = 2 * time.Second
		c.Retrying = func(_ error, pause time.Duration) { told = append(told, pause); stop() }
		_, err := c.Find(ctx, address)
		if !errors.Is(err, context.Canceled) || !slices.Equal(told, []time.Duration{want}) {
			t.Errorf("Retry-After %s: a pause of %v, want %v (%v)", after, told, want, err)
		}
	}
}

// TestHub serves two pages of a dataset's files, and redirects to another host, as the hub does.
func TestHub(t *testing.T) {
	files := map[string][]byte{"sample/10BT/000.parquet": contents(5000), "sample/10BT/001.parquet": contents(6000),
		"sample/100BT/000.parquet": contents(10), "README.md": contents(7)}
	var leaked atomic.Bool
	store := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		serveFile(w, r, files[strings.TrimPrefix(r.URL.Path, "/")])
	})
	store = strings.Replace(store, "127.0.0.1", "localhost", 1)
	endpoint := ""
	endpoint = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if name, ok := strings.CutPrefix(r.URL.Path, "/datasets/me/web/resolve/main/"); ok {
			http.Redirect(w, r, store+"/"+name, http.StatusFound)
			return
		}
		folder, ok := strings.CutPrefix(r.URL.Path, "/api/datasets/me/web/tree/main")
		if !ok {
			http.NotFound(w, r)
			return
		}
		var names []string
		for name := range files {
			if strings.HasPrefix("/"+name, folder) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		page := r.URL.Query().Get("cursor")
		half := (len(names) + 1) / 2
		if page == "" {
			w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=2>; rel="next"`, endpoint, r.URL.Path))
			names = names[:half]
		} else {
			names = names[half:]
		}
		var items []string
		for _, n := range names {
			sum := sha256.Sum256(files[n])
			items = append(items, fmt.Sprintf(`{"type":"file","path":%q,"size":%d,"oid":"git","lfs":{"oid":"%x"}}`, n,
				len(files[n]), sum))
		}
		fmt.Fprintf(w, `[{"type":"directory","path":"sample"},%s]`, strings.Join(items, ","))
	})
	c := quick()
	c.Getenv = func(name string) string {
		return map[string]string{"HF_TOKEN": "secret", "HF_ENDPOINT": endpoint}[name]
	}
	for pattern, want := range map[string]int{"sample/10BT/*.parquet": 2, "sample/10BT": 2, "sample": 3,
		"sample/*/000.parquet": 2, "sample/10BT/001.parquet": 1, "": 4, "sample/nothing/*": 0} {
		found, err := c.Find(context.Background(), "hf://datasets/me/web/"+pattern)
		if len(found) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d files, want %d (%v)", pattern, len(found), want, err)
		}
	}
	o := one(t, c, "hf://datasets/me/web/sample/10BT/001.parquet")
	if o.Name != "me/web/sample/10BT/001.parquet" || o.URL != "hf://datasets/me/web/sample/10BT/001.parquet" ||
		o.Size != 6000 {
		t.Errorf("%+v", o)
	}
	path := filepath.Join(t.TempDir(), "x")
	mustFetch(t, c, o, path, files["sample/10BT/001.parquet"])
	if leaked.Load() {
		t.Error("the token went to another host")
	}
	files["sample/10BT/001.parquet"] = contents(6001)[:6000]
	os.Remove(path)
	if err := c.Fetch(context.Background(), o, path, nil); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("other bytes: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Error("the wrong bytes are kept")
	}
}

// fakeS3 answers listings and ranged reads of one bucket, as S3 does.
func fakeS3(objects map[string][]byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key, ok := strings.CutPrefix(r.URL.Path, "/shelf/")
		if ok && key != "" {
			data, there := objects[key]
			if !there {
				w.WriteHeader(http.StatusNotFound)
				fmt.Fprint(w, `<Error><Code>NoSuchKey</Code></Error>`)
				return
			}
			sum := md5.Sum(data)
			if match := r.Header.Get("If-Match"); match != "" && match != fmt.Sprintf(`"%x"`, sum) {
				w.WriteHeader(http.StatusPreconditionFailed)
				fmt.Fprint(w, `<Error><Code>PreconditionFailed</Code></Error>`)
				return
			}
			r.Header.Del("If-Match")
			serveFile(w, r, data)
			return
		}
		var keys []string
		for k := range objects {
			if strings.HasPrefix(k, r.URL.Query().Get("prefix")) {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		fmt.Fprint(w, `<ListBucketResult><IsTruncated>false</IsTruncated>`)
		for _, k := range keys {
			fmt.Fprintf(w, `<Contents><Key>%s</Key><Size>%d</Size><ETag>&quot;%x&quot;</ETag>`+
				`<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>`,
				k, len(objects[k]), md5.Sum(objects[k]))
		}
		fmt.Fprint(w, `</ListBucketResult>`)
	}
}

func TestBuckets(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	objects := map[string][]byte{"books/a.jsonl": contents(5000), "books/b.jsonl": contents(400),
		"books/index.html": contents(3), "bookshelf.jsonl": contents(9)}
	query := "?anonymous=true&use_path_style=true&region=here&endpoint=" + url.QueryEscape(serve(t, fakeS3(objects)))
	for _, scheme := range []string{"s3", "gs"} {
		for pattern, want := range map[string]int{"books/*.jsonl": 2, "books": 2, "books/a.jsonl": 1,
			"books/[ab].jsonl": 2, "other/*": 0} {
			found, err := quick().Find(context.Background(), scheme+"://shelf/"+pattern+query)
			if len(found) != want || (err == nil) != (want > 0) {
				t.Errorf("%s: %q: %d files, want %d (%v)", scheme, pattern, len(found), want, err)
			}
		}
		o := one(t, quick(), scheme+"://shelf/books/a.jsonl"+query)
		if o.Name != "shelf/books/a.jsonl" || o.Size != 5000 {
			t.Errorf("%+v", o)
		}
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, objects["books/a.jsonl"][:1234], 0o644); err != nil {
			t.Fatal(err)
		}
		mustFetch(t, quick(), o, path, objects["books/a.jsonl"])
	}
	o := one(t, quick(), "s3://shelf/books/b.jsonl"+query)
	objects["books/b.jsonl"] = contents(401)[:400]
	if err := quick().Fetch(context.Background(), o, filepath.Join(t.TempDir(), "x"), nil); err == nil ||
		!Permanent(err) {
		t.Errorf("a changed object: %v", err)
	}
	delete(objects, "books/b.jsonl")
	if err := quick().Fetch(context.Background(), o, filepath.Join(t.TempDir(), "x"), nil); err == nil ||
		!Permanent(err) {
		t.Errorf("a missing object: %v", err)
	}
}

// A bucket without credentials is no fault that passes: the user is told at once what to set.
func TestABucketWithoutCredentials(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": nowhere, "AWS_SHARED_CREDENTIALS_FILE": nowhere, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": ""} {
		t.Setenv(name, value)
	}
	c := quick()
	c.Retrying = func(err error, _ time.Duration) { t.Errorf("trying again: %v", err) }
	_, err := c.Find(context.Background(), "s3://shelf/x.jsonl?region=here")
	if err == nil || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") ||
		!strings.Contains(err.Error(), "anonymous=true") {
		t.Errorf("it does not say what to set: %v", err)
	}
}

func TestRemote(t *testing.T) {
	for location, want := range map[string]bool{"fineweb-edu": true, "glm-5.1": true, "hf://datasets/a/b": true,
		"s3://b/x": true, "books/*.parquet": false, "sample": false} {
		if Remote(location) != want {
			t.Errorf("%s: %v", location, !want)
		}
	}
}

// A server that takes its time is named, so that nobody wonders what is waited for.
func TestASilentServerIsNamed(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	named := make(chan string, 1)
	late := func(answer http.HandlerFunc) http.HandlerFunc { // answers only when it was said who is waited for
		return func(w http.ResponseWriter, r *http.Request) {
			select {
			case host := <-named:
				named <- host
				answer(w, r)
			case <-r.Context().Done():
			}
		}
	}
	plain := serve(t, late(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "5") }))
	shelf := serve(t, late(fakeS3(map[string][]byte{"a.jsonl": contents(9)})))
	for location, server := range map[string]string{
		plain + "/a.jsonl": plain,
		"s3://shelf/a.jsonl?anonymous=true&use_path_style=true&region=here&endpoint=" + url.QueryEscape(shelf): shelf,
	} {
		c := Client{Waiting: func(host string) { named <- host }}
		if _, err := c.Find(t.Context(), location); err != nil {
			t.Fatal(err)
		}
		if host := <-named; "http://"+host != server {
			t.Errorf("%s: %s is waited for, want %s", location, host, server)
		}
	}
}
