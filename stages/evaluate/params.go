package main

import (
	"errors"
	"fmt"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/stages/evaluate/tasks"
)

// Params are the stage's parameters.
type Params struct {
	Sequences   int  `json:"sequences" usage:"number of validation sequences, from the first; 0: all"`
	Greedy      bool `json:"greedy" usage:"also count the tokens that the model predicts as most probable (a second pass)"`
	MicroTokens int  `json:"micro_tokens" usage:"tokens computed at once"`

	Breakdown   bool `json:"breakdown" digest:"unless=false" usage:"also report confidence intervals over documents, the loss by position, and the loss of tokens that induction can predict"`
	Calibration bool `json:"calibration" digest:"unless=false" usage:"also report how probable the tokens are that the model predicts as most probable, and how often they are right (a second pass)"`

	Tasks       []string `json:"tasks" digest:"-"`
	TaskLimit   int      `json:"task_limit" digest:"unless=0" usage:"number of examples of each of a task's sets, from the first; 0: all"`
	TaskDigests []string `json:"task_digests" digest:"unless=none" usage:"digests of the files of tasks, each NAME=DIGEST; computed when absent, and files of other digests are refused"`
}

// Usage implements param.Explainer.
func (Params) Usage(key string) string {
	if key != "tasks" {
		return ""
	}
	return "evaluation tasks, each NAME=PATH: a file of JSON Lines, a tar archive of such files (either also .zst or " +
		".gz), or a folder of them. Names: " + strings.Join(tasks.Names(), ", ")
}

func (p Params) check() error {
	if p.Sequences < 0 || p.TaskLimit < 0 || p.MicroTokens < 1 {
		return errors.New("sequences and task_limit must not be negative and micro_tokens must be positive")
	}
	named := map[string]bool{}
	for _, t := range p.Tasks {
		name, _, err := splitTask(t)
		if err != nil {
			return err
		}
		if named[name] {
			return fmt.Errorf("tasks: %s is given twice: put its files into one folder", name)
		}
		named[name] = true
	}
	return nil
}

// splitTask splits NAME=PATH.
func splitTask(text string) (name, path string, err error) {
	name, path, found := strings.Cut(text, "=")
	if !found || path == "" {
		return "", "", fmt.Errorf("tasks: %q is not NAME=PATH; names are %s", text, strings.Join(tasks.Names(), ", "))
	}
	if _, err := tasks.Find(name); err != nil {
		return "", "", fmt.Errorf("tasks: %w", err)
	}
	return name, path, nil
}

// complete sets TaskDigests, because a job is known by the contents of the files and not by their paths.
func (p *Params) complete() error {
	var digests []string
	for i, t := range p.Tasks {
		name, path, err := splitTask(t)
		if err != nil {
			return err
		}
		sum, err := tasks.Digest(path)
		if err != nil {
			return fmt.Errorf("task %s: %w", name, err)
		}
		digests = append(digests, name+"="+sum)
		if i < len(p.TaskDigests) && p.TaskDigests[i] != digests[i] {
			return fmt.Errorf("task %s: %s has digest %s, task_digests says %s: it has other content", name, path,
				digest.Short(sum), p.TaskDigests[i])
		}
	}
	if len(digests) == 0 && len(p.TaskDigests) > 0 {
		return errors.New("task_digests is given without tasks: name their files")
	}
	if len(p.TaskDigests) > len(digests) {
		return fmt.Errorf("task_digests: %d digests for %d tasks", len(p.TaskDigests), len(digests))
	}
	p.TaskDigests = digests
	return nil
}
