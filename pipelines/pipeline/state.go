package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// stateOf returns the state of a run: running, finished, failed or paused.
func stateOf(j journal.Journal, data, run string) (string, error) {
	done, err := finished(j, run)
	switch {
	case err != nil:
		return "", err
	case done:
		return "finished", nil
	case runningRun(data) == run:
		return "running", nil
	}
	failed, err := failedJobs(j, run)
	if len(failed) > 0 {
		return "failed", err
	}
	return "paused", err
}

// failedJobs are the last failures of the jobs that have failed and were not done since, in the order of their events.
func failedJobs(j journal.Journal, run string) ([]event.JobFinished, error) {
	jobs, err := journal.Bodies[event.JobFinished](j, run)
	if err != nil {
		return nil, err
	}
	answers := map[string]event.JobFinished{} // by listener and input
	for _, f := range jobs {
		if at := f.Listener + " " + f.Input; answers[at].Outcome != event.Done {
			answers[at] = f
		}
	}
	return slices.DeleteFunc(jobs, func(f event.JobFinished) bool {
		return f.Outcome != event.Failed || answers[f.Listener+" "+f.Input] != f
	}), nil
}

// runningRun is the run that a launcher drives at present, or empty.
func runningRun(data string) string {
	f, err := os.Open(filepath.Join(data, lockName))
	if err != nil {
		return ""
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return "" // of a launcher that has ended
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// finished reports whether the journal says that the run has ended well.
func finished(j journal.Journal, run string) (bool, error) {
	ended, err := j.Read(run, event.RunFinished{}.Kind())
	return len(ended) > 0, err
}
