// Package s3 opens buckets of S3 and of the services that speak its protocol, by their URLs. It does not know what lies
// in a bucket.
//
//	s3://BUCKET/PATH   credentials as for AWS's own tools: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a role
//	gs://BUCKET/PATH   Google Cloud Storage, with HMAC keys
//
// The query of a URL sets up the client: endpoint, region, profile, anonymous=true, use_path_style=true,
// disable_https=true and so on. No URL has a secret in it.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/aws"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"
)

// Open returns the bucket of a URL, and the path in the bucket. Requests go through wrap's client. Open asks no server:
// an error is about the URL or the configuration.
func Open(ctx context.Context, address *url.URL, wrap func(*http.Client) *http.Client) (*blob.Bucket, string, error) {
	if address.User != nil {
		return nil, "", errors.New("a key in the URL is not taken: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or " +
			"name a profile, as for AWS's own tools")
	}
	query := address.Query()
	if address.Scheme == "gs" {
		for key, value := range map[string]string{"endpoint": "https://storage.googleapis.com", "region": "auto"} {
			if !query.Has(key) {
				query.Set(key, value)
			}
		}
	}
	options, err := clientOptions(query)
	if err != nil {
		return nil, "", err
	}
	config, err := aws.V2ConfigFromURLParams(ctx, query)
	if err != nil {
		return nil, "", err
	}
	if client, ok := config.HTTPClient.(*awshttp.BuildableClient); ok {
		config.HTTPClient = wrap(&http.Client{Transport: client.GetTransport(), Timeout: client.GetTimeout()})
	}
	options = append(options, func(o *s3.Options) { o.DisableLogOutputChecksumValidationSkipped = true })
	b, err := s3blob.OpenBucket(ctx, s3.NewFromConfig(config, options...), address.Host, nil)
	if err != nil {
		return nil, "", err
	}
	return b, strings.TrimPrefix(address.Path, "/"), nil
}

// clientOptions removes from the query the parameters that set up the client, and returns them.
func clientOptions(query url.Values) (options []func(*s3.Options), err error) {
	for key, set := range map[string]func(o *s3.Options, on bool){
		"use_path_style":   func(o *s3.Options, on bool) { o.UsePathStyle = on },
		"s3ForcePathStyle": func(o *s3.Options, on bool) { o.UsePathStyle = on },
		"accelerate":       func(o *s3.Options, on bool) { o.UseAccelerate = on },
		"disable_https":    func(o *s3.Options, on bool) { o.EndpointOptions.DisableHTTPS = on },
	} {
		if !query.Has(key) {
			continue
		}
		on, err := strconv.ParseBool(query.Get(key))
		if err != nil {
			return nil, fmt.Errorf("%s=%s: write true or false", key, query.Get(key))
		}
		query.Del(key)
		options = append(options, func(o *s3.Options) { set(o, on) })
	}
	return options, nil
}
