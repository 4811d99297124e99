// Package trainlog declares the training log, train.jsonl: a line of JSON for every logged step and for every
// checkpoint. The trainer writes it; whoever draws curves or makes tables reads it. docs/formats/reports.md describes
// its keys for readers in other languages.
//
// Nothing in the log depends on when or where a run was made: equal runs write equal logs. What a step took is in
// another file (see the stage train).
package trainlog

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// FileName is the name of the log in the folder of a run's stage train, or in the folder that --out names.
const FileName = "train.jsonl"

// The values of the key event, which say what a line is.
const (
	EventStep       = "step"
	EventCheckpoint = "checkpoint"

	eventValidation = "validation" // a validation of a program that saves no checkpoint, docs/examples/dense.py
)

// Line is a Step or a Checkpoint.
type Line interface{ line() }

// Step is the line of an optimizer step. The key train_bpc counts bits per token, not per character: the name is that
// of the logs of bitnet1's PyTorch project (docs/glossary.md).
type Step struct {
	Event        string  `json:"event"` // EventStep
	Step         int     `json:"step"`  // steps taken
	Tokens       int64   `json:"tokens"`
	TrainBPC     float64 `json:"train_bpc"` // bits per token of the step's batch
	LearningRate float64 `json:"lr"`
	Gamma        float64 `json:"gamma"`              // RWSP: weight of a survivor over the weight of the one before
	GradientNorm float64 `json:"grad_norm"`          // before clipping
	Flipped      int     `json:"flipped,omitempty"`  // truebit: weights whose sign this step changed
	Sequence     int     `json:"sequence,omitempty"` // tokens of the parts into which this step cut sequences
	Seconds      float64 `json:"seconds,omitempty"`  // of training until then; docs/examples/dense.py alone writes it
}

// Checkpoint is the line of a checkpoint.
type Checkpoint struct {
	Event    string   `json:"event"` // EventCheckpoint
	Step     int      `json:"step"`
	Tokens   int64    `json:"tokens"`
	TrainBPC float64  `json:"train_bpc"` // bits per token, mean of the steps since the checkpoint before
	ValBPC   *float64 `json:"val_bpc"`   // bits per token of the trainer's validation sample; nil without a sample
	Best     bool     `json:"best"`
	Model    string   `json:"model"`             // digest of the checkpoint
	Seconds  float64  `json:"seconds,omitempty"` // as in Step
}

func (Step) line()       {}
func (Checkpoint) line() {}

// Read returns the lines of a log in their order. It leaves out lines of other events, which later versions may write.
func Read(path string) ([]Line, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("training log: %w", err)
	}
	defer f.Close()
	var lines []Line
	text := bufio.NewScanner(f)
	for number := 1; text.Scan(); number++ {
		line, err := parse(text.Bytes())
		if err != nil {
			return nil, fmt.Errorf("training log %s, line %d: %w", path, number, err)
		}
		if line != nil {
			lines = append(lines, line)
		}
	}
	if err := text.Err(); err != nil {
		return nil, fmt.Errorf("training log %s: %w", path, err)
	}
	return lines, nil
}

// parse returns the line that text is, or nil for a line of another event.
func parse(text []byte) (Line, error) {
	var of struct {
		Event string `json:"event"`
	}
	if err := json.Unmarshal(text, &of); err != nil {
		return nil, err
	}
	switch of.Event {
	case EventStep:
		var s Step
		err := json.Unmarshal(text, &s)
		return s, err
	case EventCheckpoint, eventValidation:
		var c Checkpoint
		err := json.Unmarshal(text, &c)
		return c, err
	}
	return nil, nil
}
