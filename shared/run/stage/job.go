package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/progress"
	"bitnet1/shared/run/record"
	"bitnet1/shared/run/vfs"
)

// Progress is what a job says while it works: that Done of Total things are done, what Unit is counted, and Values such
// as step, loss, tokens_per_second or learning_rate.
type Progress = progress.Report

// Host is how a stage uses the machine it runs on. It never changes what a job computes, so it is no part of the job's
// key.
type Host struct {
	Threads int    // worker threads of compute kernels
	Device  string // its name for compute.Open
	Devices string // names of several, for compute.Devices; "": Device alone
}

// Job is one stage's work for one event.
type Job[P any] struct {
	Key    string // digest of stage, version, parameters and inputs
	Run    string
	Params P
	Host   Host
	Log    *slog.Logger

	fs       vfs.FS
	space    artifact.Space
	record   *record.Record
	emit     func(context.Context, *record.Record, event.Body) error
	progress func(Progress)
	show     func(path, name string, replace bool) error
	leave    func(name string, content []byte) error
}

// Path returns the file that holds an input's bytes, its digest checked.
func (j *Job[P]) Path(ref artifact.Ref) (string, error) {
	path, err := j.space.Path(ref)
	if artifact.Unwritable(err) { // what is the disk's or the bucket's may pass
		return "", err
	}
	return path, Permanent(err)
}

// Create starts an output artifact. name is the file name people will see.
func (j *Job[P]) Create(kind, mediaType, name string) (*artifact.Writer, error) {
	return j.space.Create(kind, mediaType, name)
}

// Emit records body as an output of the job and announces it. Emitting what the job has emitted before, in this attempt
// or an earlier one, does nothing.
func (j *Job[P]) Emit(ctx context.Context, body event.Body) error {
	return j.emit(ctx, j.record, body)
}

// Progress reports how far the job is. It may be called often.
func (j *Job[P]) Progress(p Progress) { j.progress(p) }

// Note logs a sentence that a launcher shows to whoever watches the run.
func (j *Job[P]) Note(format string, args ...any) {
	j.Log.Log(context.Background(), levelNote, fmt.Sprintf(format, args...))
}

// WriteJSON makes an artifact of v as indented JSON under the given file name.
func (j *Job[P]) WriteJSON(kind, name string, v any) (artifact.Ref, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return artifact.Ref{}, err
	}
	return artifact.Put(j, kind, "application/json", name, append(b, '\n'))
}

// Scratch is a directory that survives an interruption of the job and is removed when the job is committed.
func (j *Job[P]) Scratch() (string, error) { return j.record.Scratch() }

// Keep keeps what write writes in Scratch under a name, in place of what was kept before. Whatever happens, Kept finds
// the one or the other, and never a part or something else. The digest is that of the file, whose name is
// artifact.KeptName.
func (j *Job[P]) Keep(name string, write func(io.Writer) error) (digest string, err error) {
	dir, err := j.Scratch()
	if err != nil {
		return "", err
	}
	return artifact.Keep(j.fs, dir, name, write)
}

// Kept is the path of what was kept last under a name, its digest checked. The errors are fs.ErrNotExist and
// artifact.ErrDamaged.
func (j *Job[P]) Kept(name string) (string, error) {
	dir, err := j.Scratch()
	if err != nil {
		return "", err
	}
	return artifact.Kept(dir, name)
}

// Forget removes what was kept under a name.
func (j *Job[P]) Forget(name string) error {
	dir, err := j.Scratch()
	if err != nil {
		return err
	}
	return artifact.Forget(j.fs, dir, name)
}

// WriteScratch puts v into Scratch as a file of JSON with a checksum (digest.VerifyChecksum), at once.
func (j *Job[P]) WriteScratch(name string, v any) error {
	dir, err := j.Scratch()
	if err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return artifact.WriteFileOn(j.fs, filepath.Join(dir, name), digest.AppendChecksum(b))
}

// OpenLive opens a file of LiveFile, which is created where it is missing, for reading and writing.
func (j *Job[P]) OpenLive(path string) (vfs.File, error) {
	return j.fs.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
}

// Advanced says that the job has put what it needs to go on from here into Scratch: however often it is interrupted
// from now on, it gets somewhere.
func (j *Job[P]) Advanced() error { return j.record.SetAttempts(1) }

// LiveFile is the path of a file in Scratch that people see, under its name, beside the job's artifacts while the job
// is at work: a log, say. At the end the job makes an artifact of that name, which takes its place.
func (j *Job[P]) LiveFile(name string) (string, error) {
	dir, err := j.Scratch()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	j.record.Live(name)
	return path, j.show(path, name, false)
}

// Emitted returns what the job announced in earlier attempts, oldest first, for work that continues where it was
// interrupted. An output whose artifacts are gone or damaged since is not among them, nor is what followed it: it is to
// be made again, although Scratch may be ahead of it.
func Emitted[B event.Body, P any](j *Job[P]) ([]B, error) {
	var found []B
	var zero B
	for _, out := range j.record.Outputs {
		if out.Kind != zero.Kind() {
			continue
		}
		var body B
		if err := event.Unmarshal(out.Body, &body); err != nil {
			return nil, fmt.Errorf("record of job %s: %w", digest.Short(j.Key), err)
		}
		found = append(found, body)
	}
	return found, nil
}
