package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"bitnet1/shared/s3"
)

// bucket is S3 or a service with the same protocol, such as Google Cloud Storage. The query of a URL sets up the
// client: endpoint, region, profile, anonymous=true and so on.
type bucket struct{ *Client }

// openBucket returns the bucket of a URL and the path in it.
func (c bucket) openBucket(ctx context.Context, address string) (*blob.Bucket, string, *url.URL, error) {
	u, err := parse(address)
	if err != nil {
		return nil, "", nil, err
	}
	b, key, err := s3.Open(ctx, u, func(client *http.Client) *http.Client {
		client.Transport = told(client.Transport, c.Waiting)
		return careful(client)
	})
	if err != nil {
		return nil, "", nil, permanent{err}
	}
	return b, key, u, nil
}

func (c bucket) find(ctx context.Context, address string) ([]Object, error) {
	b, pattern, u, err := c.openBucket(ctx, address)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	var all []Object
	for list := b.List(&blob.ListOptions{Prefix: fixed(pattern)}); ; {
		item, err := list.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil && strings.Contains(err.Error(), "get credentials: ") {
			return nil, permanent{fmt.Errorf("there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "+
				"name a profile with ?profile=NAME, or add ?anonymous=true for a public bucket (%w)", err)}
		}
		if err != nil {
			return nil, asPermanent(err)
		}
		own := *u
		own.Path, own.RawPath = "/"+item.Key, ""
		all = append(all, Object{Name: u.Host + "/" + item.Key, URL: Shown(own.String()), Size: item.Size,
			Version: fmt.Sprintf("%x", item.MD5)})
	}
	found, err := matching(all, pattern, func(o Object) string { return strings.TrimPrefix(o.Name, u.Host+"/") })
	for i := range found {
		if found[i].Version == "" { // the entity tag of an upload in parts is no digest
			attributes, err := b.Attributes(ctx, strings.TrimPrefix(found[i].Name, u.Host+"/"))
			if err != nil {
				return nil, asPermanent(err)
			}
			found[i].Version = attributes.ETag
		}
	}
	return found, err
}

func (c bucket) open(ctx context.Context, o Object, offset int64) (io.ReadCloser, error) {
	b, key, _, err := c.openBucket(ctx, o.URL)
	if err != nil {
		return nil, err
	}
	r, err := b.NewRangeReader(ctx, key, offset, -1, &blob.ReaderOptions{BeforeRead: func(as func(any) bool) error {
		var request *awss3.GetObjectInput
		if as(&request) && o.Version != "" {
			tag := `"` + strings.Trim(o.Version, `"`) + `"`
			request.IfMatch = &tag
		}
		return nil
	}})
	if err != nil && strings.Contains(err.Error(), "PreconditionFailed") {
		err = permanent{errChanged}
	}
	if err != nil {
		return nil, errors.Join(asPermanent(err), b.Close())
	}
	if r.Size() != o.Size {
		return nil, errors.Join(permanent{errChanged}, r.Close(), b.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{r, closers{r, b}}, nil
}

// closers are closed in order.
type closers []io.Closer

func (c closers) Close() error {
	var err error
	for _, one := range c {
		err = errors.Join(err, one.Close())
	}
	return err
}

// asPermanent marks errors that a retry cannot repair.
func asPermanent(err error) error {
	switch gcerrors.Code(err) {
	case gcerrors.NotFound, gcerrors.PermissionDenied, gcerrors.InvalidArgument, gcerrors.Unimplemented,
		gcerrors.FailedPrecondition:
		return permanent{err}
	}
	return err
}
