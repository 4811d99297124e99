package stage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/param"
)

// record is what is kept of a job, in a folder named by its key:
//
//	record.msgpack   the outputs, once the job is committed
//	partial/         the outputs so far, while it is not
//	scratch/         the stage's own files, while it is not
//	attempts         how often it was begun since it last got anywhere
//	lock             held by the process that works on it
type record struct {
	Stage   string   `msgpack:"stage"`
	Key     string   `msgpack:"key"`
	Params  string   `msgpack:"params"` // canonical JSON
	Inputs  []string `msgpack:"inputs"`
	Outputs []output `msgpack:"outputs"`

	dir      string
	lock     *os.File
	complete bool
}

// output is an event of the job, without the run it is announced in: another
// run that needs the same work gets the same outputs.
type output struct {
	Kind string             `msgpack:"kind"`
	Body msgpack.RawMessage `msgpack:"body"`
}

// jobKey is the digest of everything that determines a job's outputs.
func jobKey(stage, version string, params any, inputs []string) (key string, canonical []byte, err error) {
	if canonical, err = param.Canonical(params); err != nil {
		return "", nil, err
	}
	b, err := json.Marshal([]any{stage, version, json.RawMessage(canonical), inputs})
	return digest.Bytes(b), canonical, err
}

var errBusy = errors.New("another process works on this job")

// openRecord opens or creates the record of a job under root and takes its
// lock; errBusy when another process has it.
func openRecord(root, stage, key string, params []byte, inputs []string) (*record, error) {
	r := &record{Stage: stage, Key: key, Params: string(params), Inputs: inputs}
	r.dir = filepath.Join(root, key[:2], key)
	lock, err := lockJob(r.dir)
	if err != nil && !errors.Is(err, errBusy) {
		err = fmt.Errorf("record of job %s: %w", digest.Short(key), err)
	}
	if err != nil {
		return nil, err
	}
	r.lock = lock
	if err := r.load(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

const (
	lockName   = "lock"
	recordName = "record.msgpack"
)

// lockJob makes the folder of a job and takes its lock. Whoever has the lock may remove the folder: then it is made again.
func lockJob(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			lock.Close()
			return nil, errBusy
		}
		if artifact.IsAt(lock, path) {
			return lock, nil
		}
		lock.Close()
	}
}

// close releases the lock.
func (r *record) close() { r.lock.Close() }

func (r *record) load() error {
	b, err := os.ReadFile(filepath.Join(r.dir, recordName))
	if err == nil {
		var old record
		if event.Unmarshal(b, &old) == nil && old.Key == r.Key {
			r.Outputs, r.complete = old.Outputs, true
			return r.removeWork() // where the process was killed right after the commit
		}
		// A damaged record only costs doing the job again.
	}
	return r.loadPartial()
}

// loadPartial takes the outputs up to the first one that is missing or damaged;
// what follows is done again.
func (r *record) loadPartial() error {
	for i := 0; ; i++ {
		out, ok, err := r.readPartial(i)
		if err != nil || !ok {
			return err
		}
		r.Outputs = append(r.Outputs, out)
	}
}

func (r *record) readPartial(i int) (out output, ok bool, err error) {
	b, err := os.ReadFile(r.partial(i))
	if errors.Is(err, fs.ErrNotExist) {
		return output{}, false, nil
	}
	if err != nil {
		return output{}, false, fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
	}
	ok = event.Unmarshal(b, &out) == nil
	return out, ok, nil
}

func (r *record) partial(i int) string {
	return filepath.Join(r.dir, "partial", fmt.Sprintf("%06d.msgpack", i))
}

// add records an output; it reports false when it was there.
func (r *record) add(kind string, body []byte) (isNew bool, err error) {
	for _, out := range r.Outputs {
		if out.Kind == kind && bytes.Equal(out.Body, body) {
			return false, nil
		}
	}
	out := output{Kind: kind, Body: body}
	b, err := event.Marshal(out)
	if err != nil {
		return false, err
	}
	if err := artifact.WriteFile(r.partial(len(r.Outputs)), b); err != nil {
		return false, fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
	}
	r.Outputs = append(r.Outputs, out)
	return true, r.setAttempts(1) // it got somewhere
}

// commit makes the outputs final and removes what only an unfinished job needs.
func (r *record) commit() error {
	b, err := event.Marshal(r)
	if err != nil {
		return err
	}
	if err := artifact.WriteFile(filepath.Join(r.dir, recordName), b); err != nil {
		return fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
	}
	r.complete = true
	return r.removeWork()
}

// retract takes back the outputs of an unfinished job from the n-th on: they are announced anew when they are made again.
func (r *record) retract(n int) error {
	for i := len(r.Outputs) - 1; i >= n; i-- { // the last first: those that are left are always the first ones
		if err := os.Remove(r.partial(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("record of job %s: %w", digest.Short(r.Key), err)
		}
		r.Outputs = r.Outputs[:i:i]
	}
	return nil
}

// reset forgets everything, so that the job is done from its beginning.
func (r *record) reset() error {
	r.Outputs, r.complete = nil, false
	return errors.Join(r.removeWork(), os.RemoveAll(filepath.Join(r.dir, recordName)))
}

func (r *record) removeWork() error {
	return errors.Join(
		os.RemoveAll(filepath.Join(r.dir, "partial")),
		os.RemoveAll(filepath.Join(r.dir, "scratch")),
		os.RemoveAll(filepath.Join(r.dir, "attempts")))
}

func (r *record) scratch() (string, error) {
	dir := filepath.Join(r.dir, "scratch")
	return dir, os.MkdirAll(dir, 0o755)
}

// attempts is how often the job was begun since it last got anywhere. It is
// kept on disk because a job that kills its process must not do so forever.
func (r *record) attempts() int {
	b, err := os.ReadFile(filepath.Join(r.dir, "attempts"))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

func (r *record) setAttempts(n int) error {
	if n <= 0 { // a full disk does not keep a file from being removed
		return os.RemoveAll(filepath.Join(r.dir, "attempts"))
	}
	return artifact.WriteFile(filepath.Join(r.dir, "attempts"), []byte(strconv.Itoa(n)+"\n"))
}

// attemptsAt is attempts for a record that is not open.
func attemptsAt(root, key string) int {
	return (&record{dir: filepath.Join(root, key[:2], key)}).attempts()
}

func clearAttempts(root, key string) {
	_ = os.Remove(filepath.Join(root, key[:2], key, "attempts"))
}
