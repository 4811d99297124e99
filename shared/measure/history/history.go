// Package history reads what a run has left as numbers: its training log with the time of each step, the tables of its
// results, what the heads of its checkpoints look at, what its jobs took, and what made it: parameters, data, machine.
// Reports, exports and views show nothing else. A run that stopped early, or whose files are lost in part, gives
// what there is, and says what is missing. The package only reads, and computes nothing anew.
package history

import (
	"errors"
	"fmt"
	"io/fs"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/definition"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/results"
)

// Run is what a run has left. Of a part that is missing, the field is empty and Missing has a sentence.
type Run struct {
	ID      string
	State   string // see package overview
	Started int64  // Unix milliseconds
	Ended   int64  // of its last event

	Definition *definition.Definition
	Parameters map[string]string // what defines the run, by STAGE.KEY: see overview.Parameters
	Commands   []string          // that the launcher was given
	Machine    map[string]string // what a stage says that it computes on, by stage

	Training Training
	Tables   []*results.Table // of results; the first is that of the checkpoints
	Files    []Files          // of users, that reruns read
	Probes   []Probe          // of checkpoints, by step
	Jobs     []JobTimes
	Data     Data

	Missing []string
}

// Read reads a run of the data directory data.
func Read(data, run string) (*Run, error) {
	store := artifact.ReadOnly(data)
	r := &Run{ID: run}
	j := journal.Open(data).Telling(func(err error) { r.Missing = append(r.Missing, err.Error()) })
	runs, err := j.Runs()
	if err != nil {
		return nil, err
	}
	started, err := j.Read(run, event.RunStarted{}.Kind())
	if err != nil {
		return nil, err
	}
	if len(started) == 0 {
		return nil, command.NoSuchRun(run, runs)
	}
	r.Started = started[0].Time
	for _, read := range []func(journal.Journal, *artifact.Store) error{
		r.readState, r.readDefinition, r.readTraining, r.readTables, r.readFiles, r.readProbes, r.readData, r.readJobs,
		r.readMachine,
	} {
		if err := read(j, store); err != nil {
			r.Missing = append(r.Missing, err.Error())
		}
	}
	return r, nil
}

func (r *Run) readState(j journal.Journal, store *artifact.Store) (err error) {
	if r.State, err = overview.State(j, store.Dir(), r.ID); err != nil {
		return err
	}
	all, err := j.All(r.ID)
	for _, e := range all {
		if e.Kind != (event.RunFinished{}).Kind() || r.Ended == 0 {
			r.Ended = max(r.Ended, e.Time)
		}
	}
	return err
}

func (r *Run) readDefinition(j journal.Journal, store *artifact.Store) (err error) {
	if r.Definition, err = definition.OfRun(j, store, r.ID); err != nil {
		return err
	}
	if r.Definition == nil {
		return errors.New("the run has no definition: its events were announced by hand")
	}
	if r.Parameters, err = overview.Parameters(j, store, r.ID); err != nil {
		return err
	}
	r.Commands, err = overview.Commands(j, r.ID)
	return err
}

func (r *Run) readTables(j journal.Journal, _ *artifact.Store) (err error) {
	r.Tables, err = overview.Tables(j, r.ID)
	if err == nil && (len(r.Tables) == 0 || len(r.Tables[0].Rows) == 0) {
		err = errors.New("the run has no checkpoint yet")
	}
	return err
}

// Last is the last line of the training log, of step 0 where there is none.
func (r *Run) Last() trainlog.Step {
	if n := len(r.Training.Steps); n > 0 {
		return r.Training.Steps[n-1].Step
	}
	return trainlog.Step{}
}

// missing explains an error about a file that a run lacks.
func missing(err error, why string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (%s)", err, why)
	}
	return err
}
