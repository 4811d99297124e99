package results

import (
	"cmp"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// Table holds the results of a run: a row for each checkpoint, or for each event of another kind that a stage declares
// as a row.
type Table struct {
	Run     string
	Row     Column   // what names the rows
	Columns []Column // those of which some row has a value, baselines among them
	Rows    []*Row   // found with the run's own parameters, in the order of their names
	Others  []*Row   // found with other parameters
	Stages  []string // those that answer the rows' events

	own    map[string]bool   // keys of the columns that the rows' own events give
	main   []Column          // that say which row is the best: see Best
	inputs map[string]string // of events about the rows: which event each answers, both by id
}

// Row is one checkpoint. Its cells are by the keys of columns.
type Row struct {
	Name      string
	Overrides map[string]string // how the parameters differ from the run's own; empty in Rows
	Marks     []string          // such as best
	Cells     map[string]Cell

	key     string  // of the name, for programs
	barred  bool    // from being the best
	place   float64 // of the name, where it is a number
	input   string  // id of the event
	digests []string
}

// Place is the number that names the row, such as a checkpoint's step; ok is false where no number names it.
func (r *Row) Place() (place float64, ok bool) { return r.place, !math.IsInf(r.place, 0) }

// Cell is a value of the table.
type Cell struct {
	Text  string // for people
	Value any    // a number, or a text
	Error any    // its standard error; nil where it has none
}

// Number is the cell's number; NaN where it has none.
func (c Cell) Number() float64 {
	if n, ok := c.Value.(float64); ok {
		return n
	}
	return math.NaN()
}

// Read makes the tables of a run from its journal, one for each kind of row that is declared. Of results for the same
// row with equal parameters, the latest counts.
func Read(j journal.Journal, run string, declared []Declaration) ([]*Table, error) {
	var tables []*Table
	for _, rows := range declared {
		for _, r := range rows.Results {
			if r.Row == nil {
				continue
			}
			t := &Table{Run: run, Row: *r.Row, own: map[string]bool{}, inputs: map[string]string{}}
			if err := t.addRows(j, r); err != nil {
				return nil, err
			}
			if err := t.addStages(j, r.Kind, declared); err != nil {
				return nil, err
			}
			t.finish()
			tables = append(tables, t)
		}
	}
	return tables, nil
}

// addRows makes a row of every event of the kind; of equal names and parameters the last one.
func (t *Table) addRows(j journal.Journal, r Result) error {
	events, err := j.Announcements(t.Run, r.Kind)
	if err != nil {
		return err
	}
	for _, e := range events {
		body, err := Body(e.Body)
		if err != nil {
			return err
		}
		row := t.at(r.Row.Value.Text(body), e.Overrides)
		place, isNumber := r.Row.Value.Value(body).(float64)
		if !isNumber {
			place = math.Inf(1)
		}
		row.place, row.input, row.digests, row.Cells = place, e.ID, digests(body), map[string]Cell{}
		row.fill(withBaselines(r.Columns), body)
		row.barred = slices.ContainsFunc(r.Columns, func(c Column) bool {
			v := lookUp(body, c.Unless)
			n, isNumber := number(v)
			return isNumber && n != 0 || v == true
		})
	}
	t.Columns = withBaselines(r.Columns)
	for _, c := range t.Columns {
		t.own[c.Key] = true
	}
	return nil
}

// at is the row of a name and parameters.
func (t *Table) at(name string, overrides map[string]string) *Row {
	list := &t.Rows
	if len(overrides) > 0 {
		list = &t.Others
	}
	for _, r := range *list {
		if r.Name == name && maps.Equal(r.Overrides, overrides) {
			return r
		}
	}
	r := &Row{key: t.Row.Key, Name: name, Overrides: overrides, Cells: map[string]Cell{}}
	*list = append(*list, r)
	return r
}

// addStages fills in the columns of the stages whose events are about the rows.
func (t *Table) addStages(j journal.Journal, rows string, declared []Declaration) error {
	stages := about(declared, rows)
	for _, d := range stages {
		if d.Answers == rows {
			t.Stages = append(t.Stages, d.Stage)
		}
	}
	events := map[string][]event.Envelope{} // by kind
	for _, d := range stages {
		for _, r := range d.Results {
			var err error
			if events[r.Kind], err = j.Announcements(t.Run, r.Kind); err != nil {
				return err
			}
			for _, e := range events[r.Kind] {
				t.inputs[e.ID] = e.Input
			}
		}
	}
	for _, d := range stages {
		for _, r := range d.Results {
			if len(r.Columns) == 0 {
				continue
			}
			columns := t.unique(d.Stage, withBaselines(r.Columns))
			for _, e := range events[r.Kind] {
				if shared(declared, r.Kind) && e.Stage != d.Stage {
					continue // another stage announces the same kind, with columns of its own
				}
				if err := t.addCells(e, columns); err != nil {
					return err
				}
			}
			t.Columns = append(t.Columns, columns...)
		}
	}
	return nil
}

// about lists the stages that answer events of a kind, or events of a stage that does, and so on.
func about(declared []Declaration, kind string) []Declaration {
	kinds := []string{kind}
	answers := func(d Declaration) bool { return slices.Contains(kinds, d.Answers) }
	for known := 0; known < len(kinds); {
		known = len(kinds)
		for _, d := range declared {
			for _, r := range d.Results {
				if answers(d) && !slices.Contains(kinds, r.Kind) {
					kinds = append(kinds, r.Kind)
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(declared), func(d Declaration) bool { return !answers(d) })
}

// shared reports whether several stages declare a kind.
func shared(all []Declaration, kind string) bool {
	stages := 0
	for _, d := range all {
		if slices.ContainsFunc(d.Results, func(r Result) bool { return r.Kind == kind }) {
			stages++
		}
	}
	return stages > 1
}

// unique puts the stage's name before keys and names of columns that another stage uses, too.
func (t *Table) unique(stage string, columns []Column) []Column {
	for i := range columns {
		c := &columns[i]
		if slices.ContainsFunc(t.Columns, func(o Column) bool { return o.Key == c.Key }) {
			c.Key = stage + "." + c.Key
		}
		if slices.ContainsFunc(t.Columns, func(o Column) bool { return o.Name == c.Name }) {
			c.Name = stage + " " + c.Name
		}
	}
	return columns
}

// addCells fills in the columns of one event.
func (t *Table) addCells(e event.Envelope, columns []Column) error {
	body, err := Body(e.Body)
	if err != nil {
		return err
	}
	row := t.answered(e, body)
	if row == nil {
		return nil // it is of a checkpoint that was made again since, with other bytes
	}
	if !maps.Equal(row.Overrides, e.Overrides) && len(e.Overrides) > 0 {
		other := t.at(row.Name, e.Overrides)
		other.place = row.place
		row = other
	}
	row.fill(columns, body)
	return nil
}

// answered finds the row that an event is about. The event's input is the row's event, or an event whose input is, and
// so on. An event without an input is of another language or an older version: it contains a digest of the row's
// artifacts, or only the row's name (the step).
func (t *Table) answered(e event.Envelope, body map[string]any) *Row {
	rows := slices.Concat(t.Rows, t.Others)
	find := func(is func(*Row) bool) *Row {
		if i := slices.IndexFunc(rows, is); i >= 0 {
			return rows[i]
		}
		return nil
	}
	for id, hops := e.Input, 0; id != "" && hops <= len(t.inputs); id, hops = t.inputs[id], hops+1 {
		if r := find(func(r *Row) bool { return r.input == id }); r != nil {
			return r
		}
	}
	mentioned := digests(body)
	if r := find(func(r *Row) bool {
		return r.input != "" && slices.ContainsFunc(r.digests, func(d string) bool { return slices.Contains(mentioned, d) })
	}); r != nil {
		return r
	}
	if e.Input != "" || slices.ContainsFunc(mentioned, func(d string) bool { return lookUp(body, "model.digest") == d }) {
		return nil // of another checkpoint
	}
	name := t.Row.Value.Text(body)
	return find(func(r *Row) bool { return r.input != "" && r.Name == name })
}

// digests are the digests of the artifacts in a body. The manifest is left out, because many checkpoints share a
// dataset.
func digests(body map[string]any) []string {
	var all []string
	for key, v := range body {
		ref, ok := v.(map[string]any)
		if of, _ := ref["digest"].(string); ok && key != "manifest" && digest.Valid(of) {
			all = append(all, of)
		}
	}
	return all
}

func (r *Row) fill(columns []Column, body map[string]any) {
	for _, c := range columns {
		delete(r.Cells, c.Key)
		if cell, ok := c.Cell(body); ok {
			r.Cells[c.Key] = cell
		}
	}
}

// Cell is the column's value in the body of an event; ok is false where the body has none.
func (c Column) Cell(body map[string]any) (cell Cell, ok bool) {
	cell = Cell{Text: c.text(body), Value: c.Value.Value(body)}
	if c.Error != "" {
		cell.Error = c.Error.Value(body)
	}
	return cell, cell.Value != nil
}

// text is the column's value for people, with its standard error.
func (c Column) text(body map[string]any) string {
	text := c.Value.Text(body)
	if c.Error == "" || c.Error.Value(body) == nil {
		return text
	}
	return strings.TrimSuffix(text, " %") + " ± " + c.Error.Text(body)
}

func withBaselines(columns []Column) []Column {
	var all []Column
	for _, c := range columns {
		all = append(all, c)
		if c.Baseline != nil {
			all = append(all, c.Baseline.column(c))
		}
	}
	return all
}

// finish sorts the rows, marks the best and leaves out columns without values.
func (t *Table) finish() {
	byName := func(a, b *Row) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.Name, b.Name),
			cmp.Compare(Label(a.Overrides), Label(b.Overrides)))
	}
	slices.SortFunc(t.Rows, byName)
	slices.SortFunc(t.Others, byName)
	for _, c := range t.Columns {
		if best := t.bestBy(c); c.Mark != "" && best != nil {
			best.Marks = append(best.Marks, c.Mark)
		}
	}
	for _, own := range []bool{false, true} {
		isMain := func(c Column) bool { return t.own[c.Key] == own && c.Better != "" }
		if i := slices.IndexFunc(t.Columns, isMain); i >= 0 {
			t.main = append(t.main, t.Columns[i])
		}
	}
	t.Columns = slices.DeleteFunc(t.Columns, func(c Column) bool {
		return !slices.ContainsFunc(slices.Concat(t.Rows, t.Others), func(r *Row) bool { return r.Cells[c.Key].Value != nil })
	})
}

// bestBy is the row with the best value in a column, the first of equal ones; nil where there is none or none is
// better.
func (t *Table) bestBy(c Column) *Row {
	var best *Row
	for _, r := range t.Rows {
		v := r.Cells[c.Key].Number()
		if math.IsNaN(v) || c.Better == "" || r.barred {
			continue
		}
		if best == nil || c.Better == Lower && v < best.Cells[c.Key].Number() || c.Better == Higher &&
			v > best.Cells[c.Key].Number() {
			best = r
		}
	}
	return best
}

// Best is the row with the best value of the run's main column. That is the first column that says which values are
// better, of the stages that answer the rows; while it has no value, it is the first such column of the rows' own. Best
// is nil where neither has a value.
func (t *Table) Best() (*Row, Column) {
	for _, c := range t.main {
		if best := t.bestBy(c); best != nil {
			return best, c
		}
	}
	return nil, Column{}
}

// Last is the last row; nil where there is none.
func (t *Table) Last() *Row {
	if len(t.Rows) == 0 {
		return nil
	}
	return t.Rows[len(t.Rows)-1]
}

// Label writes how parameters differ: "sequences=2". A key has its stage before it where two stages' keys are the same.
// Digests are shortened.
func Label(overrides map[string]string) string {
	short := map[string]int{}
	for full := range overrides {
		short[keyOf(full)]++
	}
	var parts []string
	for _, full := range slices.Sorted(maps.Keys(overrides)) {
		name := full
		if short[keyOf(full)] == 1 {
			name = keyOf(full)
		}
		parts = append(parts, name+"="+wholeDigest.ReplaceAllStringFunc(overrides[full], digest.Short))
	}
	return strings.Join(parts, " ")
}

var wholeDigest = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

func keyOf(full string) string {
	if _, key, dotted := strings.Cut(full, "."); dotted {
		return key
	}
	return full
}
