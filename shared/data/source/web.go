package source

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// web is any HTTP server.
type web struct{ *Client }

// tooBusy is the answer of a server that asks for a later retry.
type tooBusy struct {
	error
	after time.Duration
}

func (w web) do(ctx context.Context, method, address string, header http.Header) (*http.Response, error) {
	if _, err := parse(address); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, cmp.Or(w.Credentials[address], address), nil)
	if err != nil {
		return nil, permanent{err}
	}
	r.Header = header
	// A server that compresses an answer gives other sizes and ranges than those of the file.
	r.Header.Set("Accept-Encoding", "identity")
	client := careful(w.HTTP)
	client.Transport = told(client.Transport, w.Waiting)
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	switch code := answer.StatusCode; {
	case code < 300:
		return answer, nil
	case code == http.StatusPreconditionFailed:
		err = permanent{errChanged}
	case code == http.StatusTooManyRequests || code >= 500 || code == http.StatusRequestTimeout:
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		err = tooBusy{fmt.Errorf("the server answers %s", answer.Status), time.Duration(seconds) * time.Second}
	default:
		err = refused{answer.StatusCode, fmt.Errorf("the server answers %s", answer.Status)}
	}
	answer.Body.Close()
	return nil, err
}

// refused is an answer that a retry would not change.
type refused struct {
	code int
	error
}

func (r refused) Error() string {
	if r.code == http.StatusUnauthorized || r.code == http.StatusForbidden {
		return r.error.Error() + ": " + `a URL needs its user and password or a signature that is still valid (a ` +
			`stage that a launcher did not start: in ` + EnvCredentials + `), the hub HF_TOKEN`
	}
	return r.error.Error()
}

func (r refused) Unwrap() error { return permanent{r.error} }

func (w web) find(ctx context.Context, address string) ([]Object, error) {
	u, err := parse(address)
	if err != nil {
		return nil, err
	}
	o := Object{Name: strings.TrimPrefix(path.Clean(u.Path), "/"), URL: Shown(address)}
	answer, err := w.do(ctx, http.MethodHead, o.URL, http.Header{})
	if r := new(refused); errors.As(err, r) && r.code != http.StatusNotFound { // a signature can be for GET alone
		answer, err = w.do(ctx, http.MethodGet, o.URL, http.Header{"Range": {"bytes=0-0"}})
	}
	if err != nil {
		return nil, err
	}
	answer.Body.Close()
	o.Size, err = sizeOf(answer)
	o.Version = versionOf(answer)
	if err != nil || o.Size < 0 {
		return nil, permanent{errors.New("the server does not say how long the file is: download it and give its path")}
	}
	return []Object{o}, nil
}

// sizeOf is the size of the whole file, even if the answer is a range of it, or -1 if the answer does not state it.
func sizeOf(answer *http.Response) (int64, error) {
	if _, total, ok := strings.Cut(answer.Header.Get("Content-Range"), "/"); ok &&
		answer.StatusCode == http.StatusPartialContent {
		if total == "*" {
			return -1, nil
		}
		return strconv.ParseInt(total, 10, 64)
	}
	return answer.ContentLength, nil
}

// versionOf is a strong entity tag, or the next best.
func versionOf(answer *http.Response) string {
	if tag := answer.Header.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return answer.Header.Get("Last-Modified")
}

func (w web) open(ctx context.Context, o Object, offset int64) (io.ReadCloser, error) {
	return w.get(ctx, o, offset, http.Header{})
}

// get requests the bytes from offset on. A server without ranges sends the whole file, of which get skips the
// beginning.
func (w web) get(ctx context.Context, o Object, offset int64, header http.Header) (io.ReadCloser, error) {
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	answer, err := w.do(ctx, http.MethodGet, o.URL, header)
	if err != nil {
		return nil, err
	}
	start := int64(0)
	if answer.StatusCode == http.StatusPartialContent {
		if _, err := fmt.Sscanf(answer.Header.Get("Content-Range"), "bytes %d-", &start); err != nil ||
			start != offset {
			answer.Body.Close()
			return nil, permanent{fmt.Errorf("the server sends the range %q where one from byte %d was asked for",
				answer.Header.Get("Content-Range"), offset)}
		}
	}
	size, err := sizeOf(answer)
	if v := versionOf(answer); err != nil || size >= 0 && size != o.Size || o.Version != "" && v != "" &&
		v != o.Version {
		answer.Body.Close()
		return nil, permanent{errChanged}
	}
	if start < offset {
		if _, err := io.CopyN(io.Discard, answer.Body, offset-start); err != nil {
			answer.Body.Close()
			return nil, err
		}
	}
	return answer.Body, nil
}

// hub is the Hugging Face hub. It lists the files of a dataset.
type hub struct{ web }

func (h hub) getenv(name, otherwise string) string {
	if h.Getenv == nil {
		return otherwise
	}
	return cmp.Or(h.Getenv(name), otherwise)
}

func (h hub) endpoint() string {
	return strings.TrimSuffix(h.getenv("HF_ENDPOINT", "https://huggingface.co"), "/")
}

// header sends the token to an address only if the address is the hub's: the next page of a list may lie elsewhere.
func (h hub) header(address string) http.Header {
	header := http.Header{}
	to, err := url.Parse(address)
	own, err2 := url.Parse(h.endpoint())
	if token := h.getenv("HF_TOKEN", ""); token != "" && err == nil && err2 == nil && origin(to) == origin(own) {
		header.Set("Authorization", "Bearer "+token)
	}
	return header
}

// place is the parts of an hf URL.
type place struct{ dataset, revision, path string }

func parseHub(address string) (place, error) {
	words := strings.SplitN(strings.TrimPrefix(address, "hf://"), "/", 4)
	if len(words) < 3 || words[0] != "datasets" || words[1] == "" || words[2] == "" {
		return place{}, permanent{errors.New("write hf://datasets/OWNER/NAME/path")}
	}
	name, revision, _ := strings.Cut(words[2], "@")
	p := place{dataset: words[1] + "/" + name, revision: cmp.Or(revision, "main")}
	if len(words) == 4 {
		p.path = words[3]
	}
	return p, nil
}

func (p place) url(file string) string {
	at := ""
	if p.revision != "main" {
		at = "@" + p.revision
	}
	return "hf://datasets/" + p.dataset + at + "/" + file
}

// mostPages bounds the list of files of a dataset; a page has up to a thousand.
const mostPages = 10000

func (h hub) find(ctx context.Context, address string) ([]Object, error) {
	p, err := parseHub(address)
	if err != nil {
		return nil, err
	}
	var all []Object
	folder := fixed(p.path)
	if folder == p.path && holdsDocuments(p.path) {
		folder = path.Dir(p.path)
	}
	next := h.endpoint() + "/api/datasets/" + p.dataset + "/tree/" + url.PathEscape(p.revision)
	if folder = strings.Trim(folder, "/."); folder != "" {
		next += "/" + escape(folder)
	}
	next += "?recursive=true"
	for asked := map[string]bool{}; next != ""; {
		if asked[next] || len(asked) == mostPages {
			return nil, permanent{errors.New("the hub's list of files has no end")}
		}
		asked[next] = true
		answer, err := h.do(ctx, http.MethodGet, next, h.header(next))
		if err != nil {
			return nil, err
		}
		var files []struct {
			Type, Path, OID string
			Size            int64
			LFS             *struct{ OID string }
		}
		err = json.NewDecoder(io.LimitReader(answer.Body, 64<<20)).Decode(&files)
		answer.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("the hub's list of files: %w", err)
		}
		for _, f := range files {
			if f.Type != "file" {
				continue
			}
			if !fs.ValidPath(f.Path) || f.Size < 0 {
				return nil, permanent{fmt.Errorf("the hub's list has a file %q of %d bytes", f.Path, f.Size)}
			}
			o := Object{Name: p.dataset + "/" + f.Path, URL: p.url(f.Path), Size: f.Size, Version: f.OID}
			if f.LFS != nil {
				o.Version = f.LFS.OID
			}
			all = append(all, o)
		}
		if next, err = nextPage(next, answer.Header.Get("Link")); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b Object) int { return cmp.Compare(a.URL, b.URL) })
	return matching(all, p.path, func(o Object) string { return strings.TrimPrefix(o.Name, p.dataset+"/") })
}

// nextPage is the address of the next page in a Link header, or empty.
func nextPage(page, link string) (string, error) {
	for part := range strings.SplitSeq(link, ",") {
		address, kind, _ := strings.Cut(strings.TrimSpace(part), ";")
		if !strings.Contains(kind, `rel="next"`) {
			continue
		}
		base, err := url.Parse(page)
		if err != nil {
			return "", err
		}
		next, err := base.Parse(strings.Trim(address, "<>"))
		if err != nil {
			return "", permanent{errors.New("the hub's list of files goes on at an address that is no URL")}
		}
		return next.String(), nil
	}
	return "", nil
}

// open requests the file from the hub. The version is a digest in the hub's list and an entity tag in its answers, so
// that only the size is compared while fetching. verify compares the digest.
func (h hub) open(ctx context.Context, o Object, offset int64) (io.ReadCloser, error) {
	p, err := parseHub(o.URL)
	if err != nil {
		return nil, err
	}
	o.URL = h.endpoint() + "/datasets/" + p.dataset + "/resolve/" + url.PathEscape(p.revision) + "/" + escape(p.path)
	o.Version = ""
	return h.get(ctx, o, offset, h.header(o.URL))
}

// escape escapes a path for a URL.
func escape(name string) string {
	elements := strings.Split(name, "/")
	for i := range elements {
		elements[i] = url.PathEscape(elements[i])
	}
	return strings.Join(elements, "/")
}
