package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"bitnet1/shared/data/source"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/stage"
)

// credentials are those of the environment, which a launcher sets, and those in the URLs on the command line.
var credentials = source.CredentialsFrom(os.Getenv)

// client fetches remote files. It logs retries and servers that do not answer, to standard error if log is nil.
func client(log *slog.Logger) *source.Client {
	c := &source.Client{HTTP: &http.Client{Transport: transport()}, Getenv: os.Getenv, LeaveOut: artifact.IsDirectory,
		Credentials: credentials}
	if log == nil {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c.Retrying = func(err error, pause time.Duration) { log.Warn("trying again", "in", pause.String(), "error", err) }
	c.Waiting = func(host string) { log.Warn("waiting for " + host + " (no answer yet)") }
	return c
}

// transport waits a minute for the beginning of an answer.
func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = time.Minute
	return t
}

// locate returns the path of a source's file and checks that the file is the one that was announced. It fetches a
// remote file into the job's scratch folder, where a later attempt continues the download.
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

// found is the source that an event describes.
func found(in event.SourceAdded) source.Found {
	return source.Found{Name: in.Name, Location: in.Path, Digest: in.Digest, Size: in.Size, Version: in.Version}
}

func fetch(ctx context.Context, job *stage.Job[Params], in event.SourceAdded) (string, error) {
	o := found(in).Object()
	if o.Digest() != in.Digest {
		return "", stage.Permanentf("source %s: its digest is not that of %s: start a new run", in.Name,
			source.Shown(in.Path))
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
