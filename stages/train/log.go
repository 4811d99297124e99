package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/stage"
)

// logName is the training log: JSON lines with nothing in them that depends on
// when or where the run was made.
const logName = "train.jsonl"

// stepLine says how a step went. BPC is bits per token, as in the seed's logs.
type stepLine struct {
	Event        string  `json:"event"` // "step"
	Step         int     `json:"step"`
	Tokens       int64   `json:"tokens"`
	TrainBPC     float64 `json:"train_bpc"`
	LearningRate float64 `json:"lr"`
	Gamma        float64 `json:"gamma"`
	GradientNorm float64 `json:"grad_norm"`         // before clipping
	Flipped      int     `json:"flipped,omitempty"` // truebit: weights that changed their sign in this step
}

// checkpointLine says what a checkpoint is worth.
type checkpointLine struct {
	Event    string   `json:"event"` // "checkpoint"
	Step     int      `json:"step"`
	Tokens   int64    `json:"tokens"`
	TrainBPC float64  `json:"train_bpc"` // mean since the checkpoint before
	ValBPC   *float64 `json:"val_bpc"`   // on the trainer's validation sample; null without one
	Best     bool     `json:"best"`
	Model    string   `json:"model"` // digest
}

// trainingLog writes the log. Its length at a checkpoint is part of the state,
// so that lines written after it are cut off when training resumes there. While
// a checkpoint is being written, whose line has its digest, later lines wait.
type trainingLog struct {
	file *os.File

	lock    sync.Mutex
	held    []byte
	holding bool
}

func openLog(job *stage.Job[Params], offset int64) (*trainingLog, error) {
	path, err := job.LiveFile(logName)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("training log: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Size() < offset {
		f.Close()
		return nil, stage.Refusef("training log %s is shorter than at the last checkpoint: train again with --force", path)
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

// write appends a line; people who watch the file see it at once, or when lines
// are no longer held.
func (l *trainingLog) write(line any) error {
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

// hold keeps lines back until release.
func (l *trainingLog) hold() {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.holding = true
}

// release writes a line before those that were held, makes the log durable up
// to it, and returns its length there.
func (l *trainingLog) release(line any) (length int64, err error) {
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

// sync makes the log durable and returns its length.
func (l *trainingLog) sync() (int64, error) {
	if err := l.file.Sync(); err != nil {
		return 0, fmt.Errorf("training log: %w", err)
	}
	return l.file.Seek(0, io.SeekCurrent)
}

// artifact makes an artifact of the log as it is.
func (l *trainingLog) artifact(job *stage.Job[Params]) (artifact.Ref, error) {
	w, err := job.Create("log", "application/jsonl", logName)
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
