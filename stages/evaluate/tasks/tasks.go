// Package tasks reads evaluation tasks from files of their users, asks for log-likelihoods, and scores the answers: the
// tasks, prompts and scores are those of lm-evaluation-harness (Gao et al.,
// github.com/EleutherAI/lm-evaluation-harness, 0.4.13), zero-shot.
//
//	task, err := tasks.Read("blimp", "blimp.tar.zst")
//	for _, example := range task.Examples {
//	    for _, request := range example.Requests { … a Likelihood for each … }
//	}
//	result := task.Score(likelihoods, vocab)
//
// The package knows no model. What a task is stands in one table (definitions.go); a new task is a row there.
package tasks

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Request asks for the log-likelihood of a continuation after a context.
type Request struct {
	Context, Continuation string
}

// Example is one question: a request for each of its answers, or a single request.
type Example struct {
	Requests []Request
	Gold     int      // index of the right answer
	Choices  []string // the answers, where there are several

	Set  string // the part of the task that the example belongs to, such as one of BLiMP's 67
	File string // where it was read
	Line int    // from 1
}

// Where names the example's file and line.
func (e Example) Where() string { return fmt.Sprintf("%s: line %d", e.File, e.Line) }

// Task is a task and its examples, in the order of the files: those of a set are neighbours.
type Task struct {
	Definition
	Examples []Example
}

// Read reads the files of a named task at path: a file of JSON Lines, a tar archive of such files, either also
// compressed with zstd or gzip, or a folder of them. An error names the file and the line.
func Read(name, path string) (*Task, error) {
	d, err := Find(name)
	if err != nil {
		return nil, err
	}
	t := &Task{Definition: d}
	err = eachRow(path, func(r *row) error {
		e, err := d.example(r)
		if err != nil {
			return err
		}
		t.Examples = append(t.Examples, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("task %s: %w", name, err)
	}
	if len(t.Examples) == 0 {
		return nil, fmt.Errorf("task %s: %s has no examples: want JSON Lines, an object an example", name, path)
	}
	slices.SortStableFunc(t.Examples, func(a, b Example) int { return strings.Compare(a.Set, b.Set) })
	return t, nil
}

// Limit keeps the first n examples of each set; 0 keeps all.
func (t *Task) Limit(n int) {
	seen := map[string]int{}
	t.Examples = slices.DeleteFunc(t.Examples, func(e Example) bool {
		seen[e.Set]++
		return n > 0 && seen[e.Set] > n
	})
}

// example makes the example of a row.
func (d Definition) example(r *row) (Example, error) {
	for _, f := range d.forms {
		if !r.has(f.keys) {
			continue
		}
		e := f.read(r)
		if r.err == nil {
			r.err = e.check()
		}
		if r.err != nil {
			return e, fmt.Errorf("%s: line %d: %w", r.file, r.line, r.err)
		}
		e.File, e.Line, e.Set = r.file, r.line, cmp.Or(e.Set, r.set)
		return e, nil
	}
	var known []string
	for _, f := range d.forms {
		known = append(known, strings.Join(strings.Fields(f.keys), ", "))
	}
	return Example{}, fmt.Errorf("%s: line %d: its keys are %s; want those of one of the task's forms: %s", r.file, r.line,
		strings.Join(r.keys(), ", "), strings.Join(known, "; or "))
}

func (e Example) check() error {
	for i, r := range e.Requests {
		if strings.TrimSpace(r.Continuation) == "" {
			return fmt.Errorf("answer %d is empty", i)
		}
	}
	if len(e.Requests) == 0 || e.Gold < 0 || e.Gold >= len(e.Requests) {
		return fmt.Errorf("the right answer is number %d of %d, from 0", e.Gold, len(e.Requests))
	}
	return nil
}
