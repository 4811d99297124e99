package main

import (
	"maps"
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
	jobs, err := journal.Bodies[event.JobFinished](j, run)
	if err != nil {
		return "", err
	}
	answered := map[string]string{} // by listener and input
	for _, f := range jobs {
		if at := f.Listener + " " + f.Input; answered[at] != event.Done {
			answered[at] = f.Outcome
		}
	}
	if slices.Contains(slices.Collect(maps.Values(answered)), event.Failed) {
		return "failed", nil
	}
	return "paused", nil
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
