package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"time"

	"bitnet1/shared/run/stage"
)

// timesName is the file of what steps took, in the folder of times. The log beside that has the same bytes however fast a
// machine is and however often it is stopped.
const timesName = "train.jsonl"

// timeLine says what the steps since the line before took, or since the training went on.
type timeLine struct {
	Step            int     `json:"step"`
	Seconds         float64 `json:"seconds"` // a step, mean
	TokensPerSecond float64 `json:"tokens_per_second"`
}

// stepTimes writes the file of times. A training does not end because they cannot be written.
type stepTimes struct {
	file *os.File // nil: nothing is written
	step int      // of the line before
	at   time.Time
}

// openTimes goes on with the file after a step; lines about later steps, which are taken again, are dropped.
func openTimes(job *stage.Job[Params], step int) *stepTimes {
	s := &stepTimes{step: step, at: time.Now()}
	path, err := job.LiveTimes(timesName)
	if err != nil {
		job.Log.Warn("no times of steps are kept", "error", err)
		return s
	}
	before, _ := os.ReadFile(path)
	var kept bytes.Buffer
	for lines := bufio.NewScanner(bytes.NewReader(before)); lines.Scan(); {
		var l timeLine
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Step <= step {
			kept.Write(append(lines.Bytes(), '\n'))
		}
	}
	if s.file, err = os.Create(path); err != nil {
		job.Log.Warn("no times of steps are kept", "error", err)
		return s
	}
	_, _ = s.file.Write(kept.Bytes())
	return s
}

// took writes a line about the steps up to this one, each of the given number of tokens.
func (s *stepTimes) took(step, tokens int) {
	now := time.Now()
	line := timeLine{Step: step, Seconds: now.Sub(s.at).Seconds() / float64(max(step-s.step, 1))}
	if line.Seconds > 0 {
		line.TokensPerSecond = float64(tokens) / line.Seconds
	}
	if b, err := json.Marshal(line); err == nil && s.file != nil {
		_, _ = s.file.Write(append(b, '\n'))
	}
	s.step, s.at = step, now
}

func (s *stepTimes) close() {
	if s.file != nil {
		s.file.Close()
	}
}
