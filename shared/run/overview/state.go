// Package overview reads what is known of a run as a whole: its state, the parameters that define it, the tables of its
// results. Commands that list, compare and report runs share it. It reads, except for the mark of a launcher at work,
// and needs neither a bus nor the stages.
package overview

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// The states of a run.
const (
	Running  = "running"  // a launcher is at it
	Paused   = "paused"   // its command goes on with it
	Failed   = "failed"   // the same, once the cause is mended
	Crashed  = "crashed"  // its launcher was killed, or the machine stopped; its command goes on with it
	Finished = "finished" // all of its events are answered
)

// State returns the state of a run whose journal lies in the data directory data.
func State(j journal.Journal, data, run string) (string, error) {
	done, err := HasEnded(j, run)
	switch {
	case err != nil:
		return "", err
	case done:
		return Finished, nil
	case Driven(data) == run:
		return Running, nil
	case hasMark(j, run):
		return Crashed, nil
	}
	failed, err := FailedJobs(j, run)
	if len(failed) > 0 {
		return Failed, err
	}
	return Paused, err
}

// markName is a file in the folder of the launcher's files of a run. It is there while a launcher drives the run, and
// stays where the launcher could not end in order.
const markName = "running"

func mark(j journal.Journal, run string) string {
	return filepath.Join(j.RunDir(run), "launcher", markName)
}

func hasMark(j journal.Journal, run string) bool {
	_, err := os.Lstat(mark(j, run))
	return err == nil
}

// Mark says that a launcher drives the run, until the launcher calls unmark. The launcher has the lock of the data
// directory.
func Mark(j journal.Journal, run string) (unmark func() error, err error) {
	path := mark(j, run)
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
		err = os.WriteFile(path, nil, 0o644)
	}
	return func() error { return os.RemoveAll(path) }, err
}

// FailedJobs are the last failures of the jobs that have failed and were not done since, in the order of their events.
func FailedJobs(j journal.Journal, run string) ([]event.JobFinished, error) {
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

// LockName is the file in a data directory that a launcher locks, and in which it names its run.
const LockName = "launcher.lock"

// Driven is the run that a launcher drives at present, or empty.
func Driven(data string) string {
	f, err := os.Open(filepath.Join(data, LockName))
	if err != nil {
		return ""
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		artifact.Unlock(f) // soon: it keeps launchers off
		return ""          // of a launcher that has ended
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// HasEnded reports whether the journal says that the run has ended well.
func HasEnded(j journal.Journal, run string) (bool, error) {
	ended, err := j.Read(run, event.RunFinished{}.Kind())
	return len(ended) > 0, err
}
