package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"time"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/stage"
)

// stepTimes writes the file of step times. Training continues if it cannot be written.
type stepTimes struct {
	file   *os.File // nil: nothing is written
	step   int      // of the last line
	tokens int64    // that the steps up to the last line have read
	at     time.Time
}

// openTimes opens the file of step times and removes the lines of later steps than step: they are taken again.
func openTimes(job *stage.Job[Params], step int, tokens int64) *stepTimes {
	s := &stepTimes{step: step, tokens: tokens, at: time.Now()}
	path, err := job.LiveTimes(trainlog.TimesFileName)
	if err != nil {
		job.Log.Warn("no times of steps are kept", "error", err)
		return s
	}
	before, _ := os.ReadFile(path)
	var kept bytes.Buffer
	for lines := bufio.NewScanner(bytes.NewReader(before)); lines.Scan(); {
		var l trainlog.StepTime
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

// took writes a line about the steps since the last line. tokens is the number that all steps have read.
func (s *stepTimes) took(step int, tokens int64) {
	now := time.Now()
	seconds := now.Sub(s.at).Seconds()
	line := trainlog.StepTime{Step: step, Seconds: seconds / float64(max(step-s.step, 1))}
	if seconds > 0 {
		line.TokensPerSecond = float64(tokens-s.tokens) / seconds
	}
	if b, err := json.Marshal(line); err == nil && s.file != nil {
		_, _ = s.file.Write(append(b, '\n'))
	}
	s.step, s.tokens, s.at = step, tokens, now
}

// leaveOut leaves out time that was spent between steps, for a checkpoint and its validation.
func (s *stepTimes) leaveOut(between time.Duration) { s.at = s.at.Add(between) }

func (s *stepTimes) close() {
	if s.file != nil {
		s.file.Close()
	}
}
