package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"bitnet1/shared/data/dataset"
	"bitnet1/shared/run/stage"
)

// stepSum is the time that a step took, over all jobs that made a dataset.
type stepSum struct {
	stage.StepTime
	stage string
	bytes int64 // of text that went through it
}

// writeTimes prints how long the steps took that made the dataset. It reads the files of times beside the manifest and,
// as in a run, in the folders next to the manifest's.
func writeTimes(out io.Writer, m *dataset.Manifest, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	var neighbours, own []string
	// the first is where an older version left them
	for _, pattern := range []string{"*.times.json", stage.TimesFile("*")} {
		n, err1 := filepath.Glob(filepath.Join(filepath.Dir(dir), "*", pattern))
		o, err2 := filepath.Glob(filepath.Join(dir, pattern))
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		neighbours, own = append(neighbours, n...), append(own, o...)
	}
	paths := append(neighbours, own...) // what was done first comes first
	var sums []stepSum
	for i, path := range paths {
		if slices.Contains(paths[i+1:], path) {
			continue // it is told with the manifest's own
		}
		t, err := readTimes(path)
		if err != nil {
			return err
		}
		ours := slices.Contains(own, path)
		if !ours && !slices.ContainsFunc(m.Sources, func(s dataset.Source) bool { return s.Name == t.Of }) {
			continue // of another dataset
		}
		for _, step := range t.Steps {
			sums = addStep(sums, t, step)
		}
	}
	if len(sums) > 0 {
		fmt.Fprintf(out, "\n%-10s %-12s %12s %12s %14s\n", "stage", "step", "cpu seconds", "wall seconds", "MB/cpu-second")
	}
	for _, s := range sums {
		fmt.Fprintf(out, "%-10s %-12s %12.3f %12.3f", s.stage, s.Step, s.CPU, s.Wall)
		if s.CPU >= 0.01 { // what is shorter is not measured well
			fmt.Fprintf(out, " %14.1f", float64(s.bytes)/1e6/s.CPU)
		}
		fmt.Fprintln(out)
	}
	return nil
}

func readTimes(path string) (t stage.JobTimes, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func addStep(sums []stepSum, t stage.JobTimes, step stage.StepTime) []stepSum {
	i := slices.IndexFunc(sums, func(s stepSum) bool { return s.stage == t.Stage && s.Step == step.Step })
	if i < 0 {
		i = len(sums)
		sums = append(sums, stepSum{stage: t.Stage, StepTime: stage.StepTime{Step: step.Step}})
	}
	sums[i].CPU += step.CPU
	sums[i].Wall += step.Wall
	sums[i].bytes += t.Bytes
	return sums
}
