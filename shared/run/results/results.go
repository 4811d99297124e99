// Package results declares how a stage's events are shown, and reads the results of a run as tables. A stage declares a
// headline for the screen and columns for the table of its run (Result, Column); screens, tables and experiments read
// nothing else of it. The declaration is data: the stage's program prints it with `describe`, and every run keeps it,
// so that a table needs none of the programs.
//
// A rerun with other parameters gets a row of its own and never replaces the run's result. The package knows no stage.
package results

import (
	"errors"
	"fmt"

	"bitnet1/shared/run/event"
)

// Result declares what is shown of one kind of event.
type Result struct {
	Kind string `json:"kind"`

	// Headline is the line that the screen shows when such an event is announced: a Template over the event's body.
	Headline string `json:"headline,omitempty"`

	// Row makes every event of this kind a row of the run's table, which this column names. The events that answer it give
	// the row's cells, beside its own Columns.
	Row *Column `json:"row,omitempty"`

	Columns []Column `json:"columns,omitempty"`
}

// Column is a column of the table.
type Column struct {
	Key   string   `json:"key"`             // of the value in JSON and in CSV files
	Name  string   `json:"name"`            // its heading
	Value Template `json:"value"`           // of the event's body; one field alone is a number for programs too
	Unit  string   `json:"unit,omitempty"`  // as it stands behind a number, where the format does not write one
	About string   `json:"about,omitempty"` // what the number is

	Better string `json:"better,omitempty"` // Lower or Higher; empty where neither is
	Mark   string `json:"mark,omitempty"`   // a word beside the row whose value is the best
	// a field of the row's event: rows where it is true or not 0 are not the best
	Unless string   `json:"unless,omitempty"`
	Error  Template `json:"error,omitempty"` // the value's standard error

	Baseline *Baseline `json:"baseline,omitempty"`
}

// Baseline is the value of a model that knows nothing. It is a column of its own beside the value.
type Baseline struct {
	Key   string   `json:"key"`
	Name  string   `json:"name"`
	Value Template `json:"value"`
	About string   `json:"about,omitempty"`
}

// Which values are better.
const (
	Lower  = "lower"
	Higher = "higher"
)

// Declaration is what one stage says of its results.
type Declaration struct {
	Stage   string   `json:"stage"`
	Answers string   `json:"answers"` // kind of the events that it answers
	Results []Result `json:"results"`
}

// Check finds what is wrong with a declaration.
func (d Declaration) Check() error {
	var problems []error
	for _, r := range d.Results {
		if !event.ValidKind(r.Kind) {
			problems = append(problems, fmt.Errorf("results of stage %s: %q is no kind of event", d.Stage, r.Kind))
		}
		problems = append(problems, Template(r.Headline).check("headline of "+r.Kind))
		columns := r.Columns
		if r.Row != nil {
			columns = append(columns[:len(columns):len(columns)], *r.Row)
		}
		for _, c := range columns {
			problems = append(problems, c.check(r.Kind))
		}
	}
	return errors.Join(problems...)
}

func (c Column) check(kind string) error {
	what := fmt.Sprintf("column %q of %s", c.Name, kind)
	problems := []error{c.Value.check(what), c.Error.check(what)}
	if c.Key == "" || c.Name == "" || c.Value == "" {
		problems = append(problems, fmt.Errorf("%s: it needs a key, a name and a value", what))
	}
	if c.Better != "" && c.Better != Lower && c.Better != Higher {
		problems = append(problems, fmt.Errorf("%s: better is %q, want %s or %s", what, c.Better, Lower, Higher))
	}
	if c.Mark != "" && c.Better == "" {
		problems = append(problems, fmt.Errorf("%s: a mark is for the best value: say which is better", what))
	}
	if b := c.Baseline; b != nil {
		problems = append(problems, b.Value.check(what))
		if b.Key == "" || b.Name == "" || b.Value == "" {
			problems = append(problems, fmt.Errorf("%s: its baseline needs a key, a name and a value", what))
		}
	}
	return errors.Join(problems...)
}

// column is b as a column of the table.
func (b Baseline) column(of Column) Column {
	return Column{Key: b.Key, Name: b.Name, Value: b.Value, Unit: of.Unit, About: b.About}
}
