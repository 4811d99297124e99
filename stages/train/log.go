package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/zeebo/blake3"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/stage"
	"bitnet1/shared/run/vfs"
)

// trainingLog writes the log of a run. A checkpoint's state holds the length of the log, and openLog cuts off later
// lines when training resumes from that checkpoint.
//
// The line of a checkpoint has its digest, which is known when the checkpoint is written. Until then the lines of later
// steps are held back.
//
// The log is an artifact at the end alone. Until then the digest of each length that training may resume from is kept
// beside the log.
type trainingLog struct {
	job    *stage.Job[Params]
	file   vfs.File
	hash   *blake3.Hasher // of all that is in the file
	synced []artifact.Length

	lock    sync.Mutex
	held    []byte // lines
	holding bool
}

// openLog opens the log of a job and cuts it off at offset.
func openLog(job *stage.Job[Params], offset int64) (*trainingLog, error) {
	path, err := job.LiveFile(trainlog.FileName)
	if err != nil {
		return nil, err
	}
	f, err := job.OpenLive(path)
	if err != nil {
		return nil, fmt.Errorf("training log: %w", err)
	}
	l := &trainingLog{job: job, file: f, hash: blake3.New()}
	if err := l.resume(path, offset); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// resume checks the first offset bytes of the log and cuts off what follows them.
func (l *trainingLog) resume(path string, offset int64) error {
	kept, err := artifact.ReadLengths(path)
	if err != nil {
		return stage.Anew(fmt.Errorf("digests of the training log: %w", err))
	}
	l.synced = kept.Lengths
	i := slices.IndexFunc(l.synced, func(s artifact.Length) bool { return s.Length >= offset })
	until := offset // a longer part of the log that is sound says that this one is
	if i >= 0 {
		until = l.synced[i].Length
	}
	damaged := func(why string) error {
		return stage.Anew(fmt.Errorf("training log %s is damaged: %s", path, why))
	}
	if _, err := io.CopyN(l.hash, l.file, offset); err != nil {
		return damaged(fmt.Sprintf("it is shorter than at the checkpoint to resume from, %d bytes", offset))
	}
	whole := l.hash.Clone()
	if _, err := io.CopyN(whole, l.file, until-offset); err != nil {
		return damaged(fmt.Sprintf("it is shorter than %d bytes", until))
	}
	if i >= 0 && sum(whole) != l.synced[i].Digest {
		return damaged("its digest differs")
	}
	if i = slices.IndexFunc(l.synced, func(s artifact.Length) bool { return s.Length > offset }); i >= 0 {
		l.synced = l.synced[:i]
		if err := l.keepLengths(); err != nil {
			return err
		}
	}
	if err := l.file.Truncate(offset); err != nil {
		return fmt.Errorf("training log: %w", err)
	}
	if _, err := l.file.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("training log: %w", err)
	}
	return nil
}

func sum(h *blake3.Hasher) string { return hex.EncodeToString(h.Sum(nil)) }

// write appends a line to the file, or to the lines that are held back.
func (l *trainingLog) write(line trainlog.Line) error {
	b, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("training log: %w", err)
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.holding {
		l.held = append(append(l.held, b...), '\n')
		return nil
	}
	return l.append(append(b, '\n'))
}

func (l *trainingLog) append(b []byte) error {
	if _, err := l.file.Write(b); err != nil {
		return fmt.Errorf("training log: %w", err)
	}
	_, _ = l.hash.Write(b)
	return nil
}

// hold holds back all lines until release.
func (l *trainingLog) hold() {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.holding = true
}

// release writes a line and syncs the file, then writes the lines that were held back. It returns the length of the log
// after the first line.
func (l *trainingLog) release(line trainlog.Line) (length int64, err error) {
	b, err := json.Marshal(line)
	if err != nil {
		return 0, fmt.Errorf("training log: %w", err)
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	if err := l.append(append(b, '\n')); err != nil {
		return 0, err
	}
	if length, err = l.sync(); err != nil {
		return 0, err
	}
	err = l.append(l.held)
	l.held, l.holding = nil, false
	return length, err
}

// sync syncs the file, keeps its digest and returns its length.
func (l *trainingLog) sync() (int64, error) {
	if err := l.file.Sync(); err != nil {
		return 0, fmt.Errorf("training log: %w", err)
	}
	length, err := l.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, fmt.Errorf("training log: %w", err)
	}
	l.synced = append(l.synced, artifact.Length{Length: length, Digest: sum(l.hash)})
	return length, l.keepLengths()
}

func (l *trainingLog) keepLengths() error {
	return l.job.WriteScratch(artifact.LengthsName(trainlog.FileName), artifact.Lengths{Lengths: l.synced})
}

// artifact makes an artifact of the present log.
func (l *trainingLog) artifact(job *stage.Job[Params]) (artifact.Ref, error) {
	w, err := job.Create("log", "application/jsonl", trainlog.FileName)
	if err != nil {
		return artifact.Ref{}, err
	}
	defer w.Abort()
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return artifact.Ref{}, err
	}
	again := blake3.New()
	if _, err := io.Copy(io.MultiWriter(w, again), l.file); err != nil {
		return artifact.Ref{}, fmt.Errorf("training log: %w", err)
	}
	if sum(again) != sum(l.hash) {
		return artifact.Ref{}, stage.Anew(fmt.Errorf("training log %s is damaged: its digest differs", l.file.Name()))
	}
	return w.Commit()
}

func (l *trainingLog) close() { l.file.Close() }
