package trainlog

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// TimesFileName is the name of the file of step times, in the folder of times beside the log. The times are not part of
// the log because equal runs write equal logs.
const TimesFileName = "train.jsonl"

// StepTime is a line of the file: the mean time of the steps since the line before it, or since training resumed.
type StepTime struct {
	Step            int     `json:"step"`
	Seconds         float64 `json:"seconds"` // per step
	TokensPerSecond float64 `json:"tokens_per_second"`
}

// Seconds is how long the steps of a file of times took together. Steps that an interruption lost, and that no line
// counts, are taken to be as long as those that were done again.
func Seconds(path string) (float64, error) {
	last := 0.0
	err := elapsed(path, func(_ int, seconds float64) { last = seconds })
	return last, err
}

// Elapsed is the training time in seconds at each step that a file of times has a line of.
func Elapsed(path string) (map[int]float64, error) {
	all := map[int]float64{}
	err := elapsed(path, func(step int, seconds float64) { all[step] = seconds })
	return all, err
}

// elapsed calls line with each line's step and the training time until then.
func elapsed(path string, line func(step int, seconds float64)) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("times of steps: %w", err)
	}
	defer f.Close()
	sum, before := 0.0, 0
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		var l StepTime
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("times of steps %s, line %d: %w", path, number, err)
		}
		sum += float64(l.Step-before) * l.Seconds
		before = l.Step
		line(l.Step, sum)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("times of steps %s: %w", path, err)
	}
	return nil
}
