// Package record keeps on disk what is known of each job: its outputs once it is done, and what an interrupted job goes
// on from. It finds out what a run lacks of what its jobs have made, and it fences processes off from one another: the
// process that opened a record is the only one at work on the job. It does not do jobs; package stage does.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bucket"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/vfs"
)

// Record is what is kept of one job, in a folder named by the job's key:
//
//	record.msgpack   the outputs, once the job is committed
//	partial/         the outputs so far, while it is not
//	scratch/         the stage's own files, while it is not
//	attempts         how often it was begun since it last got anywhere
//	lock             held by the process that works on it
//
// In a data directory that is attached to a bucket, the outputs are in the bucket, see shared.go.
type Record struct {
	Stage   string   `msgpack:"stage"`
	Key     string   `msgpack:"key"`
	Params  string   `msgpack:"params"` // canonical JSON
	Inputs  []string `msgpack:"inputs"`
	Outputs []Output `msgpack:"outputs"` // in the order in which they were announced

	// Unkeyed are the parameters that are no part of the key, such as the paths of files whose digests are, as JSON. They
	// are those of the process that committed the job; "" where none was given, and in older records.
	Unkeyed string `msgpack:"unkeyed,omitempty"`

	// Damage says what was found damaged when the record was opened, and what is done instead.
	Damage []error `msgpack:"-"`

	fs       vfs.FS
	dir      string
	lock     vfs.File
	shared   *shared // nil: the folder is the only place where the record is kept
	complete bool

	makers map[artifact.Ref]int // the first of the Outputs that mentions each artifact; nil: unknown
	looked int                  // of so many Outputs
}

// Output is an event of the job, without the run it is announced in: another run that needs the same work gets the same
// outputs.
type Output struct {
	Kind string             `msgpack:"kind"`
	Body msgpack.RawMessage `msgpack:"body"`
}

// Key is the digest of everything that determines a job's outputs.
func Key(stage, version string, params any, inputs []string) (key string, canonical []byte, err error) {
	if canonical, err = param.Canonical(params); err != nil {
		return "", nil, err
	}
	b, err := json.Marshal([]any{stage, version, json.RawMessage(canonical), inputs})
	return digest.Bytes(b), canonical, err
}

// ErrBusy is the error of a record that another process has open.
var ErrBusy = errors.New("another process works on this job")

// Root is where the records of a data directory are.
func Root(store *artifact.Store) string { return filepath.Join(store.Dir(), "jobs") }

// OneShot is the name of the folder of records in the folder into which a stage's one-shot form writes.
const OneShot = ".jobs"

// Open opens or creates the record of a job under root and takes its lock. The error is ErrBusy where another process
// has the lock.
func Open(root, stage, key string, params []byte, inputs []string) (*Record, error) {
	return OpenOn(vfs.OS, root, stage, key, params, inputs)
}

// OpenOn is Open on another file system than the operating system's.
func OpenOn(fsys vfs.FS, root, stage, key string, params []byte, inputs []string) (*Record, error) {
	r := &Record{fs: fsys, Stage: stage, Key: key, Params: string(params), Inputs: inputs}
	r.dir = filepath.Join(root, key[:2], key)
	lock, err := lockJob(fsys, r.dir)
	if err != nil && !errors.Is(err, ErrBusy) {
		err = fmt.Errorf("record of job %s: %w", digest.Short(key), err)
	}
	if err != nil {
		return nil, err
	}
	r.lock = lock
	if b := bucket.Of(filepath.Dir(root)); b != nil {
		err = r.loadShared(b)
	} else {
		err = r.load()
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Files in the folder of a job.
const (
	FileName = "record.msgpack" // of a finished job
	LockName = "lock"
)

// lockJob makes the folder of a job and takes its lock. Whoever has the lock may remove the folder: then it is made
// again.
func lockJob(fsys vfs.FS, dir string) (vfs.File, error) {
	path := filepath.Join(dir, LockName)
	for {
		if err := vfs.MkdirAll(fsys, dir); err != nil {
			return nil, err
		}
		lock, err := fsys.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			lock.Close()
			return nil, ErrBusy
		}
		if artifact.IsAt(lock, path) {
			return lock, nil
		}
		lock.Close()
	}
}

// Complete reports whether the job is done: its outputs are final.
func (r *Record) Complete() bool { return r.complete }

// Dir is the record's folder.
func (r *Record) Dir() string { return r.dir }

// Close releases the lock.
func (r *Record) Close() {
	if r.shared != nil {
		r.shared.lease.Release()
	}
	artifact.Unlock(r.lock)
	r.lock.Close()
}

func (r *Record) load() error {
	old, err := read(r.dir)
	if err == nil && old.Key == r.Key {
		r.Outputs, r.Unkeyed, r.complete = old.Outputs, old.Unkeyed, true
		return r.removeWork() // where the process was killed right after the commit
	}
	if !errors.Is(err, fs.ErrNotExist) {
		path := filepath.Join(r.dir, FileName)
		r.Damage = append(r.Damage, fmt.Errorf("%s is damaged: the job is done again", path))
	}
	return r.loadPartial()
}

// read reads the record of a finished job from the job's folder.
func read(dir string) (*Record, error) {
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		return nil, err
	}
	r := &Record{dir: dir, complete: true}
	return r, decode(b, r)
}

// decode reads what encode wrote, or an older version without a checksum.
func decode(b []byte, into any) error {
	if err := digest.VerifyChecksum(b); err != nil {
		return err
	}
	return event.Unmarshal(b, into)
}

// encode is v as msgpack with a checksum.
func encode(v any) ([]byte, error) {
	b, err := event.Marshal(v)
	return digest.AppendChecksum(b), err
}

// Find reads the record of a finished job under root.
func Find(root, key string) (*Record, error) {
	if !digest.Valid(key) { // a stage in another language keeps no records
		return nil, fmt.Errorf("record of job %q: %w", key, fs.ErrNotExist)
	}
	dir := filepath.Join(root, key[:2], key)
	r, err := read(dir)
	if b := bucket.Of(filepath.Dir(root)); b != nil && err != nil {
		r, err = fetch(b, dir, key)
	}
	if err == nil && r.Key != key {
		err = errors.New("it is of another job")
	}
	if err != nil {
		return nil, fmt.Errorf("record of job %s: %w", digest.Short(key), err)
	}
	return r, nil
}

// Finished are the records under root of all finished jobs. One that cannot be read is left out: its job is done again.
func Finished(root string) (all []*Record, err error) {
	if b := bucket.Of(filepath.Dir(root)); b != nil {
		if err := fetchAll(b, root); err != nil {
			return nil, err
		}
	}
	found, err := filepath.Glob(filepath.Join(root, "*", "*", FileName))
	if err != nil {
		return nil, err
	}
	for _, path := range found {
		if r, err := read(filepath.Dir(path)); err == nil {
			all = append(all, r)
		}
	}
	return all, nil
}

// OfSameInputs are the records under root of the finished jobs that the same stage did of the same inputs, with other
// parameters or in another version.
func (r *Record) OfSameInputs(root string) ([]*Record, error) {
	all, err := Finished(root)
	return slices.DeleteFunc(all, func(other *Record) bool {
		return other.Key == r.Key || other.Stage != r.Stage || !slices.Equal(other.Inputs, r.Inputs)
	}), err
}

// loadPartial takes the outputs up to the first one that is missing or damaged; what follows is done again.
func (r *Record) loadPartial() error {
	for i := 0; ; i++ {
		out, ok, err := r.readPartial(i)
		if err != nil || !ok {
			return err
		}
		r.Outputs = append(r.Outputs, out)
	}
}

func (r *Record) readPartial(i int) (out Output, ok bool, err error) {
	b, err := os.ReadFile(r.partial(i))
	if errors.Is(err, fs.ErrNotExist) {
		return Output{}, false, nil
	}
	if err != nil {
		return Output{}, false, fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
	}
	if ok = decode(b, &out) == nil; !ok {
		r.Damage = append(r.Damage, fmt.Errorf("%s is damaged: the job goes on from what it made before", r.partial(i)))
	}
	return out, ok, nil
}

func (r *Record) partial(i int) string {
	return filepath.Join(r.dir, "partial", fmt.Sprintf("%06d.msgpack", i))
}

// Add records an output. It reports false where the output was there.
func (r *Record) Add(kind string, body []byte) (isNew bool, err error) {
	for _, out := range r.Outputs {
		if out.Kind == kind && bytes.Equal(out.Body, body) {
			return false, nil
		}
	}
	out := Output{Kind: kind, Body: body}
	if err := r.keep(out); err != nil {
		return false, fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
	}
	r.Outputs = append(r.Outputs, out)
	return true, r.SetAttempts(1) // it got somewhere
}

// keep writes an output of the unfinished job.
func (r *Record) keep(out Output) error {
	if r.shared != nil {
		return r.write(append(slices.Clip(r.Outputs), out), false)
	}
	b, err := encode(out)
	if err != nil {
		return err
	}
	return artifact.WriteFileOn(r.fs, r.partial(len(r.Outputs)), b)
}

// Commit makes the outputs final and removes what only an unfinished job needs.
func (r *Record) Commit() error {
	b, err := encode(r)
	if err != nil {
		return err
	}
	if r.shared != nil {
		if err := r.commitShared(b); err != nil {
			return fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
		}
	}
	if err := artifact.WriteFileOn(r.fs, filepath.Join(r.dir, FileName), b); err != nil {
		return fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
	}
	r.complete = true
	return r.removeWork()
}

// Retract takes back the outputs of an unfinished job from the n-th on. They are announced anew when they are made
// again.
func (r *Record) Retract(n int) error {
	r.makers = nil
	if r.shared != nil {
		if err := r.write(r.Outputs[:n:n], false); err != nil {
			return fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
		}
		r.Outputs = r.Outputs[:n:n]
		return nil
	}
	for i := len(r.Outputs) - 1; i >= n; i-- { // the last first: those that are left are always the first ones
		if err := r.fs.Remove(r.partial(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
		}
		r.Outputs = r.Outputs[:i:i]
	}
	return nil
}

// Reset forgets everything, so that the job is done from its beginning.
func (r *Record) Reset() error {
	if r.shared != nil {
		if err := r.resetShared(); err != nil {
			return err
		}
	}
	r.makers, r.Outputs, r.complete = nil, nil, false
	return errors.Join(r.removeWork(), vfs.RemoveAll(r.fs, filepath.Join(r.dir, FileName)))
}

func (r *Record) removeWork() error {
	return errors.Join(
		vfs.RemoveAll(r.fs, filepath.Join(r.dir, "partial")),
		vfs.RemoveAll(r.fs, filepath.Join(r.dir, "scratch")),
		vfs.RemoveAll(r.fs, filepath.Join(r.dir, "attempts")))
}

// Scratch is the folder of the stage's own files, until the job is committed.
func (r *Record) Scratch() (string, error) {
	dir := filepath.Join(r.dir, "scratch")
	return dir, vfs.MkdirAll(r.fs, dir)
}

// Attempts is how often the job was begun since it last got anywhere. The number is kept on disk because a job that
// kills its process must not do so for ever.
func (r *Record) Attempts() int {
	b, err := os.ReadFile(filepath.Join(r.dir, "attempts"))
	if err != nil {
		return 0
	}
	if b, err = digest.CutChecksum(b); err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// SetAttempts sets what Attempts returns.
func (r *Record) SetAttempts(n int) error {
	if n <= 0 { // a full disk does not keep a file from being removed
		return vfs.RemoveAll(r.fs, filepath.Join(r.dir, "attempts"))
	}
	return artifact.WriteFileOn(r.fs, filepath.Join(r.dir, "attempts"),
		digest.AppendChecksum([]byte(strconv.Itoa(n)+"\n")))
}

// AttemptsAt is Attempts of a record that is not open.
func AttemptsAt(root, key string) int {
	return (&Record{dir: filepath.Join(root, key[:2], key)}).Attempts()
}

// ClearAttempts is SetAttempts(0) of a record that is not open.
func ClearAttempts(root, key string) {
	_ = os.Remove(filepath.Join(root, key[:2], key, "attempts"))
}
