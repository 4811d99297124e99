// Package bucket keeps bytes under keys where every host of a run reaches them: in S3-compatible storage.
//
// A data directory that is attached to a bucket is its host's cache of the bucket, and the place of its host's work.
// The bucket has the layout of a data directory, so a copy of the bucket is a data directory. Packages artifact,
// journal and record decide what lies in the bucket; this package does not know what the bytes mean.
//
// The storage must refuse to create an object that is there (If-None-Match: *). All that fences hosts off from one
// another rests on that, see package lease.
package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"bitnet1/shared/s3"
)

// Bucket is a part of a bucket: all objects under the path of its URL.
type Bucket struct {
	blobs  *blob.Bucket
	prefix string
	unfit  error // why no operation can succeed
	place  string
}

// Object is what a listing says of an object.
type Object struct {
	Key  string
	Size int64  // bytes
	MD5  []byte // of the bytes; nil where the storage does not say
}

// Errors of this package.
var (
	ErrExists   = errors.New("it is in the bucket already")
	ErrUnusable = errors.New("the bucket cannot be used")
	ErrDamaged  = errors.New("the bucket has other bytes than were written")
)

// How long the storage has. An operation is begun again until patience is over. A transfer that moves nothing for as
// long as stall has failed.
const (
	patience = 30 * time.Second
	stall    = 30 * time.Second
)

// open returns the bucket of a URL such as s3://BUCKET/PATH?region=…, see package s3.
func open(address string) (*Bucket, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "s3" && u.Scheme != "gs" {
		return nil, fmt.Errorf("bucket %q: give s3://BUCKET/PATH or gs://BUCKET/PATH", address)
	}
	blobs, prefix, err := s3.Open(context.Background(), u, func(client *http.Client) *http.Client {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		return client
	})
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", address, err)
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return &Bucket{blobs: blobs, prefix: prefix}, nil
}

// Place names the data directory that is attached to the bucket, among all that are.
func (b *Bucket) Place() string { return b.place }

// Put makes the bytes of key to be data.
func (b *Bucket) Put(key string, data []byte) error { return b.put(key, data, nil) }

// Create is Put of a key that has no bytes. Of all that create a key, one succeeds; the error of the others is
// ErrExists.
func (b *Bucket) Create(key string, data []byte) error {
	err := b.put(key, data, &blob.WriterOptions{IfNotExist: true})
	if !errors.Is(err, ErrExists) {
		return err
	}
	// The answer to an earlier attempt of ours may be lost.
	if there, readErr := b.Get(key); readErr == nil && bytes.Equal(there, data) {
		return nil
	}
	return err
}

func (b *Bucket) put(key string, data []byte, how *blob.WriterOptions) error {
	return b.again("writing "+key, func(ctx context.Context, _ func()) error {
		return b.blobs.WriteAll(ctx, b.prefix+key, data, how)
	})
}

// Get returns the bytes of key. The error of a key that has none is fs.ErrNotExist.
func (b *Bucket) Get(key string) (data []byte, err error) {
	err = b.again("reading "+key, func(ctx context.Context, _ func()) error {
		data, err = b.blobs.ReadAll(ctx, b.prefix+key)
		return err
	})
	return data, err
}

// Size returns the number of bytes of key. The error of a key that has none is fs.ErrNotExist.
func (b *Bucket) Size(key string) (size int64, err error) {
	err = b.again("looking for "+key, func(ctx context.Context, _ func()) error {
		attributes, err := b.blobs.Attributes(ctx, b.prefix+key)
		if err == nil {
			size = attributes.Size
		}
		return err
	})
	return size, err
}

// Upload is Put of a file's bytes.
func (b *Bucket) Upload(key, path string) error {
	return b.again("writing "+key, func(ctx context.Context, moved func()) error {
		f, err := os.Open(path)
		if err != nil {
			return permanent{err}
		}
		defer f.Close()
		return b.blobs.Upload(ctx, b.prefix+key, reader{f, moved},
			&blob.WriterOptions{ContentType: "application/octet-stream"})
	})
}

// File is what Download writes into.
type File interface {
	io.WriteSeeker
	Truncate(size int64) error
}

// Download writes the bytes of key into f, from f's beginning.
func (b *Bucket) Download(key string, f File) error {
	return b.again("reading "+key, func(ctx context.Context, moved func()) error {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return permanent{err}
		}
		if err := f.Truncate(0); err != nil {
			return permanent{err}
		}
		r, err := b.blobs.NewReader(ctx, b.prefix+key, nil)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(file{f}, reader{r, moved})
		return err
	})
}

// List lists the objects whose keys begin with prefix, sorted by key.
func (b *Bucket) List(prefix string) (all []Object, err error) {
	items, err := b.list(prefix, "")
	for _, item := range items {
		all = append(all, Object{strings.TrimPrefix(item.Key, b.prefix), item.Size, item.MD5})
	}
	return all, err
}

// Folders lists the folders in a folder, whose name ends with a slash.
func (b *Bucket) Folders(folder string) (names []string, err error) {
	items, err := b.list(folder, "/")
	for _, item := range items {
		if item.IsDir {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(item.Key, b.prefix+folder), "/"))
		}
	}
	return names, err
}

// list lists what the keys that begin with prefix name, up to the delimiter, if any.
func (b *Bucket) list(prefix, delimiter string) (items []*blob.ListObject, err error) {
	err = b.again("listing "+prefix, func(ctx context.Context, moved func()) error {
		items = nil
		list := b.blobs.List(&blob.ListOptions{Prefix: b.prefix + prefix, Delimiter: delimiter})
		for {
			item, err := list.Next(ctx)
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			moved()
			items = append(items, item)
		}
	})
	return items, err
}

// Remove removes the object of key, if there is one.
func (b *Bucket) Remove(key string) error {
	err := b.again("removing "+key, func(ctx context.Context, _ func()) error {
		return b.blobs.Delete(ctx, b.prefix+key)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// RemoveAll removes the objects whose keys begin with prefix.
func (b *Bucket) RemoveAll(prefix string) error {
	all, err := b.List(prefix)
	for _, o := range all {
		err = errors.Join(err, b.Remove(o.Key))
	}
	return err
}

// again calls do until it succeeds, cannot succeed, or patience is over. The context that do gets ends when moved was
// not called for as long as stall.
func (b *Bucket) again(what string, do func(ctx context.Context, moved func()) error) error {
	if b.unfit != nil {
		return b.unfit
	}
	limit := time.Now().Add(patience)
	damaged := 0
	for pause := 100 * time.Millisecond; ; pause *= 2 {
		err := b.once(do)
		if err == nil {
			return nil
		}
		if strings.Contains(err.Error(), "checksum did not match") { // the client's words for its check on reading
			damaged++
		}
		var p permanent
		switch code := gcerrors.Code(err); {
		case errors.As(err, &p):
			return fmt.Errorf("%s: %w", what, p.error)
		case code == gcerrors.NotFound && !strings.Contains(err.Error(), "NoSuchBucket"):
			return fmt.Errorf("%s: %w (%w)", what, fs.ErrNotExist, err)
		case damaged > 2: // on the way it would not happen every time
			return fmt.Errorf("%s: %w (%w)", what, ErrDamaged, err)
		case code == gcerrors.FailedPrecondition:
			return fmt.Errorf("%s: %w", what, ErrExists)
		case code == gcerrors.PermissionDenied, refused(err):
			return fmt.Errorf("%s: %w: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they permit (%w)",
				what, ErrUnusable, err)
		case time.Now().Add(pause).After(limit):
			return fmt.Errorf("%s: %w (tried for %s): %w", what, ErrUnusable, patience, err)
		}
		time.Sleep(min(pause, 2*time.Second))
	}
}

// refused reports whether the storage does not take the credentials.
func refused(err error) bool {
	var answer interface{ HTTPStatusCode() int }
	return errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusForbidden
}

func (b *Bucket) once(do func(ctx context.Context, moved func()) error) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	silence := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing moved for %s", stall)) })
	defer silence.Stop()
	err := do(ctx, func() { silence.Reset(stall) })
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// permanent is an error of this host, not of the storage.
type permanent struct{ error }

// reader tells that bytes move.
type reader struct {
	io.Reader
	moved func()
}

func (r reader) Read(p []byte) (int, error) {
	r.moved()
	return r.Reader.Read(p)
}

// file marks errors of a file that is written.
type file struct{ f File }

func (f file) Write(p []byte) (int, error) {
	n, err := f.f.Write(p)
	if err != nil {
		err = permanent{err}
	}
	return n, err
}
