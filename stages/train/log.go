package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/stage"
)

// trainingLog writes the log of a run. A checkpoint's state holds the length of the log, and openLog cuts off later
// lines when training resumes from that checkpoint.
//
// The line of a checkpoint has its digest, which is known when the checkpoint is written. Until then the lines of later
// steps are held back.
type trainingLog struct {
	file *os.File

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
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("training log: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Size() < offset {
		f.Close()
		return nil, stage.Permanentf("training log %s is shorter than at the last checkpoint: train again with --force", path)
	}
	if err := f.Truncate(offset); err != nil {
		f.Close()
		return nil, fmt.Errorf("training log: %w", err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("training log: %w", err)
	}
	return &trainingLog{file: f}, nil
}

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

// sync syncs the file and returns its length.
func (l *trainingLog) sync() (int64, error) {
	if err := l.file.Sync(); err != nil {
		return 0, fmt.Errorf("training log: %w", err)
	}
	return l.file.Seek(0, io.SeekCurrent)
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
	if _, err := io.Copy(w, l.file); err != nil {
		return artifact.Ref{}, fmt.Errorf("training log: %w", err)
	}
	return w.Commit()
}

func (l *trainingLog) close() { l.file.Close() }
