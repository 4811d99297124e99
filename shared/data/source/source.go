// Package source finds the files of documents that a user names, and fetches those that lie elsewhere:
//
//	path, file:///path                      a file of this machine, or a pattern, see package glob
//	https://host/path                       any server; http:// as well
//	hf://datasets/OWNER/NAME[@REVISION]/path  a dataset of the Hugging Face hub; HF_TOKEN is used if set
//	s3://BUCKET/path                        S3 and what speaks its protocol; credentials as for AWS's own tools
//	gs://BUCKET/path                        Google Cloud Storage, over the same protocol
//
// The path of the last three can be a folder, or a pattern too. Fetching resumes in the middle of a file, retries what
// may pass, and notices when the file is no longer the one that was found. Passwords, tokens and signatures go to the
// server they are for, and stand in no URL that the package gives, nor in its errors. It knows nothing of what is in
// the files.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"bitnet1/shared/data/documents"
	"bitnet1/shared/data/glob"
	"bitnet1/shared/digest"
)

// Object is a remote file. Two objects with equal fields have the same bytes, as far as the server can be trusted.
type Object struct {
	Name    string // in provenance; it contains no host and does not depend on where the file is fetched to
	URL     string // as Shown has it, with the scheme that the user gave
	Size    int64  // bytes
	Version string // entity tag or digest of the bytes, as the server gives it; empty if it gives none
}

// Digest identifies the content of the object without reading it: by URL, version and size.
func (o Object) Digest() string {
	return digest.Bytes(fmt.Appendf(nil, "bitnet1.remote.v1\n%s\n%s\n%d\n", o.URL, o.Version, o.Size))
}

// presets are short names for datasets.
var presets = map[string]string{
	"fineweb-edu": "hf://datasets/HuggingFaceFW/fineweb-edu/sample/10BT/*.parquet",
	"glm-5.1":     "hf://datasets/Jackrong/GLM-5.1-Reasoning-1M-Cleaned/*.jsonl",
}

// Remote tells whether a location is for this package: a URL, or the name of a preset.
func Remote(location string) bool {
	return strings.Contains(location, "://") && !strings.HasPrefix(location, fileScheme) || presets[location] != ""
}

// Client finds and fetches files. The zero value works.
type Client struct {
	// HTTP is used for https and hf. Default: http.DefaultClient.
	HTTP *http.Client
	// Getenv gives HF_TOKEN and HF_ENDPOINT (the hub's address). Default: no variable is set.
	Getenv func(string) string
	// Retries is the number of failures in a row after which a request is given up. Default: 8.
	Retries int
	// Pause is the time before the first retry. It doubles with each retry, up to a minute. Default: half a second.
	Pause time.Duration
	// Retrying, if set, is called with every error that is followed by a retry, and the pause before that retry.
	Retrying func(err error, pause time.Duration)
	// Waiting, if set, is called once for a request whose server does not answer for a while.
	Waiting func(host string)
	// LeaveOut, if set, tells which folders of this machine the ** of a pattern does not stand for.
	LeaveOut func(folder string) bool
	// Credentials are the secrets of URLs. Find adds the secrets of the URLs that it is given.
	Credentials Credentials
}

// service is a kind of server.
type service interface {
	// find lists the objects that match a pattern, sorted by URL.
	find(ctx context.Context, pattern string) ([]Object, error)
	// open returns the bytes of an object from offset on. If the object has changed since it was found, the error is
	// errChanged.
	open(ctx context.Context, o Object, offset int64) (io.ReadCloser, error)
}

// errChanged is the error if an object is not the one that was found.
var errChanged = errors.New("the file has changed since it was found: start a new run with it")

// permanent is an error that a retry cannot repair.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Permanent tells whether a retry cannot repair an error.
func Permanent(err error) bool { return errors.As(err, new(permanent)) }

func (c *Client) service(url string) (service, error) {
	scheme, _, _ := strings.Cut(url, "://")
	switch scheme {
	case "http", "https":
		return web{c}, nil
	case "hf":
		return hub{web{c}}, nil
	case "s3", "gs":
		return bucket{c}, nil
	}
	return nil, fmt.Errorf("source %s: give a path, or a URL with https, hf, s3 or gs", Shown(url))
}

// Find lists the objects that a URL, a pattern or a preset stands for, sorted by URL.
func (c *Client) Find(ctx context.Context, location string) ([]Object, error) {
	if p := presets[location]; p != "" {
		location = p
	}
	s, err := c.service(location)
	if err != nil {
		return nil, err
	}
	if c.Credentials == nil {
		c.Credentials = Credentials{}
	}
	c.Credentials.add(location)
	var found []Object
	err = c.retry(ctx, location, func() (bool, error) {
		found, err = s.find(ctx, location)
		return false, err
	})
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", Shown(location), err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("source %s: no such file", Shown(location))
	}
	return found, nil
}

// retry calls f, which asks for location, until it succeeds, fails permanently, or has failed too often in a row
// without progress.
func (c *Client) retry(ctx context.Context, location string, f func() (progress bool, err error)) error {
	limit, first := c.Retries, c.Pause
	if limit <= 0 {
		limit = 8
	}
	if first <= 0 {
		first = 500 * time.Millisecond
	}
	pause := first
	for failures := 1; ; failures++ {
		progress, err := f()
		if err != nil {
			err = hidden{err}
		}
		if err == nil || Permanent(err) || ctx.Err() != nil {
			return err
		}
		if progress {
			failures, pause = 1, first
		}
		if failures > limit {
			return fmt.Errorf("%w (given up after %d retries)", err, limit)
		}
		wait := pause
		if a := new(tooBusy); errors.As(err, a) {
			wait = min(max(wait, a.after), time.Minute)
		}
		if c.Retrying != nil {
			c.Retrying(fmt.Errorf("source %s: %w", Shown(location), err), wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, time.Minute)
	}
}

// matching keeps the objects whose path, as key gives it, is equal to pattern. If there are none, it keeps the
// documents in the folder pattern, and if there are none either, the paths that match pattern.
func matching(all []Object, pattern string, key func(Object) string) ([]Object, error) {
	pattern = strings.TrimSuffix(pattern, "/")
	_, mistake := glob.Match(pattern, "")
	for _, meant := range []func(name string) bool{
		func(name string) bool { return pattern == "" || name == pattern },
		func(name string) bool { return strings.HasPrefix(name, pattern+"/") && holdsDocuments(name) },
		func(name string) bool { ok, _ := glob.Match(pattern, name); return ok },
	} {
		found := slices.DeleteFunc(slices.Clone(all), func(o Object) bool { return !meant(key(o)) })
		if len(found) > 0 {
			return found, nil
		}
	}
	if mistake != nil {
		return nil, permanent{fmt.Errorf("pattern %s: %w", pattern, mistake)}
	}
	return nil, nil
}

// holdsDocuments tells whether a file in a folder is likely to hold documents. Plain text and JSON may be about the
// other files.
func holdsDocuments(name string) bool {
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
	return slices.Contains(documents.TypicalExtensions(), path.Ext(name))
}

// fixed is the part of a pattern before the first name with a wildcard. Listing begins there.
func fixed(pattern string) string {
	i := strings.IndexAny(pattern, "*[")
	if i < 0 {
		return pattern
	}
	return pattern[:strings.LastIndexByte(pattern[:i], '/')+1]
}
