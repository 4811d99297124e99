package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bucket"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/lease"
)

// In a bucket that several hosts share, a record lies where it lies in a data directory, and beside it the log of the
// job (package lease): jobs/ab/<key>/000001 and so on. Outputs and the commit are entries of the log, so no process
// writes them after another one has taken the job over. The folder of the job has a copy of a finished job's record,
// the stage's own files, and the lock that keeps processes of one host off one another.

// shared is what a record needs of the bucket.
type shared struct {
	bucket *bucket.Bucket
	lease  *lease.Lease
	live   map[string]string // digests of the live files, by name, as of the last output
}

// state is what an entry of the job's log says.
type state struct {
	Complete bool              `msgpack:"complete"`
	Outputs  []Output          `msgpack:"outputs"`
	Live     map[string]string `msgpack:"live"`
	Unkeyed  string            `msgpack:"unkeyed,omitempty"`
}

// ErrSuperseded is the error of a record that another process has taken over, because this one seemed dead. It is an
// ErrBusy.
var ErrSuperseded = fmt.Errorf("this process was silent for too long and another one has taken the job over: %w",
	ErrBusy)

// folder is where a job lies in a bucket.
func folder(key string) string { return path.Join("jobs", key[:2], key) }

// loadShared reads the record from the bucket, and takes the job's lease unless the job is done.
func (r *Record) loadShared(b *bucket.Bucket) error {
	l, err := lease.Read(b, folder(r.Key))
	if err != nil {
		return fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
	}
	r.shared = &shared{bucket: b, lease: l, live: map[string]string{}}
	s, err := r.state()
	if err != nil {
		return err
	}
	if s.Complete {
		r.Outputs, r.Unkeyed, r.complete = s.Outputs, s.Unkeyed, true
		return errors.Join(r.publish(), r.removeWork())
	}
	own := l.IsOwn()
	if err := r.take(); err != nil {
		return err
	}
	r.Outputs, r.shared.live = s.Outputs, s.Live
	if own {
		return nil
	}
	return r.adopt()
}

// take takes the lease of the job.
func (r *Record) take() error {
	err := r.shared.lease.Take()
	if errors.Is(err, lease.ErrHeld) {
		return ErrBusy
	}
	return err
}

func (r *Record) state() (s state, err error) {
	b := r.shared.lease.State()
	if b == nil {
		return s, nil
	}
	if err := event.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
	}
	return s, nil
}

// adopt makes the stage's own files those that the process of another host had at its last output. Whatever else this
// host has of an earlier attempt is behind them.
func (r *Record) adopt() error {
	if err := r.removeWork(); err != nil || len(r.shared.live) == 0 {
		return err
	}
	dir, err := r.Scratch()
	if err != nil {
		return err
	}
	for name, sum := range r.shared.live {
		if sum == "" {
			continue
		}
		if !artifact.ValidName(name) {
			return fmt.Errorf("record of job %s: %q is no file name", digest.Short(r.Key), name)
		}
		if err := r.download(sum, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Record) download(sum, to string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.shared.bucket.Download(path.Join(folder(r.Key), "live", sum), f); err != nil {
		return fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
	}
	got, _, err := digest.File(to)
	if err == nil && got != sum {
		err = fmt.Errorf("record of job %s: the bucket's copy of %s is damaged", digest.Short(r.Key), filepath.Base(to))
	}
	return err
}

// Live says that the file of that name in Scratch is needed, beside the outputs, to go on with the job on another host:
// each output keeps the file as it is then.
func (r *Record) Live(name string) {
	if r.shared == nil {
		return
	}
	if r.shared.live == nil {
		r.shared.live = map[string]string{}
	}
	if _, ok := r.shared.live[name]; !ok {
		r.shared.live[name] = ""
	}
}

// write appends the outputs to the job's log.
func (r *Record) write(outputs []Output, complete bool) error {
	s := state{Complete: complete, Outputs: outputs, Unkeyed: r.Unkeyed}
	if !complete {
		if err := r.keepLive(); err != nil {
			return err
		}
		s.Live = r.shared.live
	}
	b, err := event.Marshal(s)
	if err != nil {
		return err
	}
	if complete {
		err = r.shared.lease.Finish(b)
	} else {
		err = r.shared.lease.Write(b)
	}
	if errors.Is(err, lease.ErrLost) {
		return ErrSuperseded
	}
	return err
}

// keepLive puts the live files into the bucket as they are. The stage may be writing to them.
func (r *Record) keepLive() error {
	for name, before := range r.shared.live {
		b, err := os.ReadFile(filepath.Join(r.dir, "scratch", name))
		sum := digest.Bytes(b)
		if errors.Is(err, fs.ErrNotExist) || err == nil && sum == before {
			continue
		}
		if err == nil {
			err = r.shared.bucket.Put(path.Join(folder(r.Key), "live", sum), b)
		}
		if err != nil {
			return err
		}
		r.shared.live[name] = sum
	}
	return nil
}

// commitShared makes the outputs final for all hosts. b is the record as a file.
func (r *Record) commitShared(b []byte) error {
	if err := r.write(r.Outputs, true); err != nil {
		return err
	}
	if err := r.shared.bucket.Put(path.Join(folder(r.Key), FileName), b); err != nil {
		return err
	}
	return r.shared.bucket.RemoveAll(path.Join(folder(r.Key), "live") + "/")
}

// publish writes the record of a finished job where its writer died before it did, and into the job's folder.
func (r *Record) publish() error {
	b, err := encode(r)
	if err != nil {
		return err
	}
	at := filepath.Join(r.dir, FileName)
	if old, err := os.ReadFile(at); err == nil && bytes.Equal(old, b) {
		return nil
	}
	key := path.Join(folder(r.Key), FileName)
	if _, err := r.shared.bucket.Size(key); errors.Is(err, fs.ErrNotExist) {
		if err := r.shared.bucket.Put(key, b); err != nil {
			return err
		}
	}
	return artifact.WriteFileOn(r.fs, at, b)
}

// resetShared begins the job anew for all hosts.
func (r *Record) resetShared() error {
	if r.complete {
		if err := r.take(); err != nil {
			return err
		}
	}
	r.shared.live = nil
	if err := r.write(nil, false); err != nil {
		return err
	}
	return r.shared.bucket.Remove(path.Join(folder(r.Key), FileName))
}

// Superseded is closed when another process has taken the job over; nil where that cannot happen.
func (r *Record) Superseded() <-chan struct{} {
	if r.shared == nil {
		return nil
	}
	return r.shared.lease.Lost()
}

// fetch copies the record of a finished job from the bucket into the job's folder.
func fetch(b *bucket.Bucket, dir, key string) (*Record, error) {
	data, err := b.Get(path.Join(folder(key), FileName))
	if err != nil {
		return nil, err
	}
	if err := artifact.WriteFile(filepath.Join(dir, FileName), data); err != nil {
		return nil, err
	}
	return read(dir)
}

// fetchAll copies the records of finished jobs that root lacks.
func fetchAll(b *bucket.Bucket, root string) error {
	all, err := b.List("jobs/")
	if err != nil {
		return err
	}
	for _, o := range all {
		key := path.Base(path.Dir(o.Key))
		if path.Base(o.Key) != FileName || !digest.Valid(key) {
			continue
		}
		dir := filepath.Join(root, key[:2], key)
		if _, err := os.Stat(filepath.Join(dir, FileName)); err == nil {
			continue
		}
		if _, err := fetch(b, dir, key); err != nil && errors.Is(err, bucket.ErrUnusable) {
			return err
		}
	}
	return nil
}
