package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// outcome is what a run has made and said.
type outcome struct {
	artifacts map[string]string // by digest, what their file is: the digest again, or what is wrong with it
	links     map[string]string // names that people see, and where they lead
	journal   map[string]string // ids of events, and their kinds; without job.finished and run.finished
	answers   map[string]string // listener and event, and what came of it
	finished  bool              // run.finished is there

	announced []string // ids that the event server has
	kept      []string // ids that the journal has
	left      []string // files of unfinished work
}

// stages are those that answered.
func (o outcome) stages() []string {
	var names []string
	for answer := range o.answers {
		name, _, _ := strings.Cut(answer, " ")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// outcome reads what the trial has left.
func (t *trial) outcome(ctx context.Context) (o outcome, err error) {
	if o, err = readOutcome(t.data()); err != nil {
		return o, err
	}
	o.announced, err = t.announced(ctx)
	return o, err
}

func readOutcome(data string) (o outcome, err error) {
	o = outcome{artifacts: map[string]string{}, links: map[string]string{}, journal: map[string]string{},
		answers: map[string]string{}}
	var damaged error
	j := journal.Open(data).Telling(func(err error) { damaged = errors.Join(damaged, err) })
	runs, err := j.Runs()
	if err != nil || len(runs) != 1 {
		return o, errors.Join(err, damaged, fmt.Errorf("runs in the data directory: %v, want one", runs))
	}
	events, err := j.All(runs[0])
	if err := errors.Join(err, damaged); err != nil {
		return o, err
	}
	for _, e := range events {
		if err := o.add(e); err != nil {
			return o, err
		}
	}
	for _, pattern := range []string{"tmp/*", "tmp/.*", "jobs/*/*/partial", "jobs/*/*/scratch", "jobs/*/*/attempts",
		"jobs/*/*/.*", "runs/*/*/.*", "runs/*/events/*/.*"} {
		found, _ := filepath.Glob(filepath.Join(data, pattern)) // the pattern is sound
		o.left = append(o.left, found...)
	}
	return o, errors.Join(o.readArtifacts(data), o.readLinks(filepath.Join(data, "runs")))
}

// add takes an event of the journal.
func (o *outcome) add(e event.Envelope) error {
	o.kept = append(o.kept, e.ID)
	switch e.Kind {
	case event.RunFinished{}.Kind():
		o.finished = true
	case event.JobFinished{}.Kind():
		f, err := event.Into[event.JobFinished](e)
		if err != nil {
			return err
		}
		answer := f.Listener + " " + f.Input
		switch before := o.answers[answer]; {
		case f.Outcome == event.Failed:
			o.answers[answer] = "failed: " + f.Cause
		case before == "":
			o.answers[answer] = "answered" // a stage that gathers waits at some of its events, depending on their order
		}
	default:
		o.journal[e.ID] = e.Kind
	}
	return nil
}

func (o *outcome) readArtifacts(data string) error {
	found, _ := filepath.Glob(filepath.Join(data, "objects", "*", "*"))
	for _, path := range found {
		sum, size, err := digest.File(path)
		if err != nil {
			return err
		}
		name := filepath.Base(path)
		if o.artifacts[name] = sum; sum != name {
			o.artifacts[name] = fmt.Sprintf("%d bytes with digest %s", size, digest.Short(sum))
		}
	}
	return nil
}

func (o *outcome) readLinks(runs string) error {
	return filepath.WalkDir(runs, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		to, err := os.Readlink(path)
		if err == nil {
			name, _ := filepath.Rel(runs, path)
			o.links[name] = to
		}
		return err
	})
}

// compare says in what got differs from what an undisturbed run leaves.
func compare(want, got outcome) (all []string) {
	differ := func(what string, want, got map[string]string) {
		keys := slices.AppendSeq(slices.Collect(maps.Keys(want)), maps.Keys(got))
		slices.Sort(keys)
		for _, key := range slices.Compact(keys) {
			if want[key] != got[key] {
				all = append(all, fmt.Sprintf("%s %s: %s; undisturbed: %s", what, key, orNone(got[key]), orNone(want[key])))
			}
		}
	}
	differ("artifact", want.artifacts, got.artifacts)
	differ("link", want.links, got.links)
	differ("event", want.journal, got.journal)
	differ("answer", want.answers, got.answers)
	if !got.finished {
		all = append(all, "the journal has no run.finished")
	}
	kept := map[string]string{}
	for _, id := range got.kept {
		kept[id] = "there"
	}
	announced := map[string]string{}
	for _, id := range got.announced {
		if announced[id] != "" {
			all = append(all, "the event server has this event more than once: "+id)
		}
		announced[id] = "there"
	}
	differ("event on the server, beside the journal,", kept, announced)
	for _, path := range got.left {
		all = append(all, "left behind: "+path)
	}
	return all
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
