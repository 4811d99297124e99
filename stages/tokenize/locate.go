package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"bitnet1/shared/data/source"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// credentials open remote files: a launcher's, and those of the URLs on the command line.
var credentials = source.CredentialsFrom(os.Getenv)

// client fetches remote files. log, if not nil, is told of retries and of servers that do not answer; otherwise people are.
func client(log *slog.Logger) *source.Client {
	c := &source.Client{HTTP: &http.Client{Transport: transport()}, Getenv: os.Getenv, Credentials: credentials}
	if log == nil {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c.Retrying = func(err error) { log.Warn("trying again", "error", err) }
	c.Waiting = func(host string) { log.Warn("waiting for " + host + " (no answer yet)") }
	return c
}

// transport gives up on a server that does not begin to answer.
func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = time.Minute
	return t
}

// locate returns the file of a source, and makes sure that it is the one that was announced. A remote one is fetched
// into the job's scratch directory, where a later attempt goes on with it.
func locate(ctx context.Context, job *stage.Job[Params], in event.SourceAdded) (string, error) {
	if source.Remote(in.Path) {
		return fetch(ctx, job, in)
	}
	path, err := found(in).Check(ctx)
	if err != nil && ctx.Err() == nil {
		err = stage.Permanent(err)
	}
	return path, err
}

// found is what a source.added event says of a source.
func found(in event.SourceAdded) source.Found {
	return source.Found{Name: in.Name, Location: in.Path, Digest: in.Digest, Size: in.Size, Version: in.Version}
}

func fetch(ctx context.Context, job *stage.Job[Params], in event.SourceAdded) (string, error) {
	o := found(in).Object()
	if o.Digest() != in.Digest {
		return "", stage.Permanentf("source %s: its digest is not that of %s: start a new run", in.Name, source.Shown(in.Path))
	}
	dir, err := job.Scratch()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "fetched")
	started := time.Now()
	var before int64
	if info, err := os.Stat(path); err == nil {
		before = info.Size()
	}
	err = client(job.Log).Fetch(ctx, o, path, func(done int64) {
		job.Progress(stage.Progress{
			Done: done, Total: o.Size + 1, Unit: "bytes fetched", // more is to come
			Values: map[string]float64{"bytes_per_second": float64(done-before) / time.Since(started).Seconds()},
		})
	})
	if source.Permanent(err) {
		err = stage.Permanent(err)
	}
	return path, err
}
