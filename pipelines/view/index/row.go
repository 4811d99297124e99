package index

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bitnet1/shared/lm/trainlog"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

// Row is what the list of runs says of one.
type Row struct {
	Number  int    `json:"number"` // of the run, as long as the index lives
	Run     string `json:"run"`
	Gone    bool   `json:"gone,omitempty"`    // it was removed
	State   string `json:"state"`             // see package overview
	Problem string `json:"problem,omitempty"` // what of it cannot be read
	Started int64  `json:"started"`           // Unix milliseconds
	Changed int64  `json:"changed"`           // when something happened last, Unix milliseconds

	Step   int     `json:"step"`            // optimizer steps taken
	Steps  int     `json:"steps,omitempty"` // that will be taken; 0: not known
	Tokens int64   `json:"tokens"`
	Loss   float64 `json:"loss,omitempty"` // bits per token of the last logged step
	Rate   float64 `json:"rate,omitempty"` // tokens a second of the last logged steps

	Checkpoints int          `json:"checkpoints"`
	Best        string       `json:"best,omitempty"`  // name of the best checkpoint, whose results the cells are
	Cells       map[int]Cell `json:"cells,omitempty"` // by the number of their column: see Columns
	Parameters  []int        `json:"parameters"`      // numbers: see Parameters

	Work []Work `json:"work,omitempty"` // what stages say of the jobs that they are at
}

// Work is what a stage has said of its job.
type Work struct {
	Stage string  `json:"stage"`
	Share float64 `json:"share"` // of the job that is done
	Text  string  `json:"text"`

	said time.Time
}

// Cell is a result: as people read it, and as a number where it has one.
type Cell struct {
	Text  string   `json:"text"`
	Value *float64 `json:"value,omitempty"`
}

// Column is a column of results that a stage has declared.
type Column struct {
	Key    string `json:"key"`
	Name   string `json:"name"`
	About  string `json:"about"`
	Better string `json:"better"`
}

// Columns are the columns of all rows from the n-th on; the number of a column is its place in the list.
func (x *Index) Columns(n int) []Column {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append([]Column{}, x.columns.values[n:]...)
}

// Parameters are the parameters of all rows from the n-th on, each a key and a value.
func (x *Index) Parameters(n int) [][2]string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append([][2]string{}, x.parameters.values[n:]...)
}

// read reads the row of a run anew, from its events and its definition, and finds the folder of its training log.
func (x *Index) read(old Row) (row Row, folder string) {
	row = Row{Number: old.Number, Run: old.Run, Step: old.Step, Tokens: old.Tokens, Loss: old.Loss, Rate: old.Rate}
	var problems []error
	j := x.journal.Telling(func(err error) { problems = append(problems, err) })
	started, err := j.Read(row.Run, event.RunStarted{}.Kind())
	problems = append(problems, err)
	var stages []string
	if len(started) > 0 {
		row.Started = started[0].Time
		body, err := event.Into[event.RunStarted](started[0])
		stages, problems = body.Stages, append(problems, err)
	}
	row.State, err = overview.State(j, x.dir, row.Run)
	given, lost := overview.Parameters(j, x.store, row.Run)
	problems = append(problems, err, lost)
	row.Changed = x.lastEvent(row.Run)
	if row.Started == 0 {
		row.Started = row.Changed
	}
	folder = x.logFolder(row.Run, stages)
	row.Steps, _ = strconv.Atoi(given[folder+".steps"])
	declared, err := results.Declared(j, row.Run, nil)
	problems = append(problems, err)
	tables, err := results.Read(j, row.Run, declared)
	problems = append(problems, err)
	x.mu.Lock()
	defer x.mu.Unlock()
	for key, value := range given {
		row.Parameters = append(row.Parameters, x.parameters.of([2]string{key, value}))
	}
	slices.Sort(row.Parameters)
	x.addResults(&row, tables)
	if err := errors.Join(problems...); err != nil {
		row.Problem = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return row, folder
}

// lastEvent is when an event was kept last, or the run was made.
func (x *Index) lastEvent(name string) (milliseconds int64) {
	dir := filepath.Join(x.dir, "runs", name, "events")
	kinds, _ := os.ReadDir(dir) // of a run that is being removed: none
	for _, kind := range kinds {
		if info, err := kind.Info(); err == nil {
			milliseconds = max(milliseconds, info.ModTime().UnixMilli())
		}
	}
	if info, err := os.Stat(dir); err == nil {
		milliseconds = cmp.Or(milliseconds, info.ModTime().UnixMilli())
	}
	return milliseconds
}

// logFolder is the stage with the training log: train, unless a stage of another name writes one.
func (x *Index) logFolder(name string, stages []string) string {
	for _, s := range stages {
		if _, err := os.Stat(filepath.Join(x.dir, "runs", name, s, trainlog.FileName)); err == nil && event.ValidRun(s) {
			return s
		}
	}
	return "train"
}

// addResults takes the results of the best checkpoint, or the last one where none is the best.
func (x *Index) addResults(row *Row, tables []*results.Table) {
	for _, t := range tables {
		row.Checkpoints += len(t.Rows)
		best, _ := t.Best()
		if best == nil {
			best = t.Last()
		}
		if best == nil || row.Best != "" {
			continue
		}
		row.Best, row.Cells = best.Name, map[int]Cell{}
		for _, c := range t.Columns {
			if cell, ok := best.Cells[c.Key]; ok {
				row.Cells[x.columns.of(columnOf(c))] = cellOf(cell)
			}
		}
	}
}

func columnOf(c results.Column) Column { return Column{c.Key, c.Name, c.Meaning(), c.Better} }

func cellOf(c results.Cell) Cell {
	cell := Cell{Text: c.Text}
	if v := c.Number(); !math.IsNaN(v) && !math.IsInf(v, 0) {
		rounded, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 6, 64), 64)
		cell.Value = &rounded
	}
	return cell
}

// lastBytes is how much of the end of a log is read for its last line.
const lastBytes = 2048

// readTail reads the last lines of the log and of the times into row, unless they are those of before. It returns
// another text when they have changed.
func (x *Index) readTail(dir, before string, row *Row) string {
	log, err := x.open(filepath.Join(dir, trainlog.FileName))
	if err != nil {
		if ignoreMissing(err) != nil {
			row.Problem = err.Error()
		}
		return err.Error()
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return err.Error()
	}
	now := fmt.Sprint(info.Size(), " ", info.ModTime().UnixNano())
	if now == before && row.Step > 0 {
		return now
	}
	row.Changed = max(row.Changed, info.ModTime().UnixMilli())
	lastLine(log, info.Size(), trainlog.EventStep, func(key string, v float64) {
		switch key {
		case "step":
			row.Step = int(v)
		case "tokens":
			row.Tokens = int64(v)
		case "train_bpc":
			row.Loss = rounded(v)
		}
	})
	if times, err := x.open(filepath.Join(dir, stage.TimesFolder, trainlog.TimesFileName)); err == nil {
		defer times.Close()
		if info, err := times.Stat(); err == nil {
			lastLine(times, info.Size(), "", func(key string, v float64) {
				if key == "tokens_per_second" {
					row.Rate = rounded(v)
				}
			})
		}
	}
	return now
}

func rounded(v float64) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 5, 64), 64)
	return v
}

// lastLine calls value for the numbers of the last whole line of an event in a file.
func lastLine(f *os.File, size int64, event string, value func(key string, v float64)) {
	end := make([]byte, min(size, lastBytes))
	if _, err := f.ReadAt(end, size-int64(len(end))); err != nil {
		return // it was cut off meanwhile: the next time
	}
	lines := strings.Split(string(end), "\n")
	for _, line := range slices.Backward(lines[:len(lines)-1]) {
		found := map[string]float64{}
		of, ok := trainlog.Values([]byte(line), func(key []byte, v float64) { found[string(key)] = v })
		if !ok || string(of) != event {
			continue
		}
		for key, v := range found {
			value(key, v)
		}
		return
	}
}
