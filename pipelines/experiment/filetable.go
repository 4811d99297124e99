package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/experiment/seeds"
	"bitnet1/shared/digest"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/resultsfile"
	"bitnet1/shared/run/terminal"
)

func tableCommand() *cli.Command {
	return &cli.Command{
		Name: "table", Usage: "print a table of the runs in results files", ArgsUsage: "FILE …",
		Description: "Runs that differ in their seed alone are one row: mean, standard error and, of three or more, the " +
			"median. Rows come\nin the order of the first column that says which values are better. Nothing is run.\n\n" +
			"Keys are model, hardware, dataset and the parameters of the training (for rows and --where), seeds, steps, " +
			"tokens, seconds,\ntokens_per_second, megabytes, median, difference and the results of the lines (for " +
			"columns).\n\n" +
			"Example:\n   experiment table --where preset=75M --baseline v76 docs/recipes/v77.jsonl",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "rows", Usage: "`KEYS` that name a row (default: model, and what differs between the rows); " +
				"optimizer=adamw says what to call a parameter that a line leaves out"},
			&cli.StringFlag{Name: "columns", Usage: "`KEYS` of the columns (default: seeds, the loss on validation text, " +
				"tokens and seconds)"},
			&cli.StringSliceFlag{Name: "where", Usage: "only runs with this `KEY=VALUE,VALUE`; give one flag for each key"},
			&cli.StringFlag{Name: "baseline", Usage: "compare the rows with this `ROW`, such as v76 or stream_bits=1, instead " +
				"of the best"},
			&cli.BoolFlag{Name: "markdown", Usage: "as Markdown, for a page"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return command.UsageError(errors.New("give a results file: experiment table FILE"))
			}
			runs, err := readResults(c.Args().Slice())
			if err != nil {
				return err
			}
			t, err := tableOf(runs, selection{
				rows: list(c.String("rows")), columns: list(c.String("columns")), where: c.StringSlice("where"),
				baseline: c.String("baseline"),
			})
			if err != nil {
				return command.UsageError(err)
			}
			if c.Bool("markdown") {
				return t.writeMarkdown(c.App.Writer)
			}
			return t.writeText(c.App.Writer, terminal.Width(c.App.Writer))
		},
	}
}

// readResults reads the runs of results files.
func readResults(paths []string) (runs []resultsfile.Run, err error) {
	for _, path := range paths {
		more, err := resultsfile.Read(path)
		if err != nil {
			return nil, err
		}
		runs = append(runs, more...)
	}
	return runs, eachOnce(runs)
}

func list(text string) []string {
	if text == "" {
		return nil
	}
	return param.Split(text)
}

// selection is what of results files a table shows.
type selection struct {
	rows, columns, where []string
	baseline             string
}

// known are the columns that are written in a form of their own; other results are numbers with three decimals of which
// nothing says whether less is better.
var known = []column{
	{Key: "bits_per_token", Name: "bits/token", Value: "{bits_per_token:.3}", Better: results.Lower,
		About: "loss on the whole validation text, bits per token"},
	{Key: "validation_bits", Name: "validation", Value: "{validation_bits:.3}", Better: results.Lower,
		About: "loss on a sample of the validation text, bits per token"},
	{Key: "train_bits", Name: "training", Value: "{train_bits:.3}",
		About: "loss on the training text since the checkpoint before, bits per token"},
	seedsColumn, medianColumn, differenceColumn,
	{Key: "steps", Name: "steps", Value: "{steps}"},
	{Key: "tokens", Name: "M tokens", Value: "{tokens:.1}"},
	{Key: "seconds", Name: "seconds", Value: "{seconds:.0}"},
	{Key: "megabytes", Name: "MB packed", Value: "{megabytes:.1}", Better: results.Lower,
		About: "size of the packed model in millions of bytes"},
	{Key: "tokens_per_second", Name: "k tokens/s", Value: "{tokens_per_second:.0}"},
}

// losses are the results that a table shows by itself, if any run has them.
var losses = []string{"bits_per_token", "validation_bits"}

// tableOf makes the table of runs.
func tableOf(runs []resultsfile.Run, s selection) (table, error) {
	o, err := rowsOf(runs, s)
	if err != nil {
		return table{}, err
	}
	if o.columns, err = s.chosen(o.rows); err != nil {
		return table{}, err
	}
	o.sort()
	return o.table()
}

// rowsOf are the rows of runs that differ in more than their seeds.
func rowsOf(runs []resultsfile.Run, s selection) (o overSeeds, err error) {
	if runs, err = s.filter(runs); err != nil {
		return o, err
	}
	o.baseline = s.baseline
	groups := bySeed(runs)
	rows := s.rows
	if len(rows) == 0 {
		rows = labelsOf(groups)
	}
	defaults := map[string]string{}
	for i, text := range rows {
		key, value, given := strings.Cut(text, "=")
		if !slices.Contains(keysOf(runs), key) {
			return o, fmt.Errorf("--rows %s: %w", text, param.UnknownKey(key, keysOf(runs)))
		}
		if rows[i] = key; given {
			defaults[key] = value
		}
		o.labels = append(o.labels, column{Name: key})
	}
	for _, group := range groups {
		r := seedRow{seeds: len(group), values: map[string]seeds.Sample{}}
		for _, key := range rows {
			label := labelOf(group[0], key)
			if text, given := defaults[key]; given && label == atDefault {
				label = text
			}
			r.labels = append(r.labels, label)
		}
		for _, run := range group {
			for key, value := range measuredOf(run) {
				if r.values[key] == nil {
					r.values[key] = seeds.Sample{}
				}
				r.values[key][run.Seed] = value
			}
		}
		if i := slices.IndexFunc(o.rows, func(other seedRow) bool { return slices.Equal(other.labels, r.labels) }); i >= 0 {
			return o, fmt.Errorf("two rows are called %s: --rows needs one of %s, too", strings.Join(r.labels, " "),
				strings.Join(labelsOf([][]resultsfile.Run{groups[i], group}), ", "))
		}
		o.rows = append(o.rows, r)
	}
	return o, nil
}

// filter leaves the runs that --where wants.
func (s selection) filter(runs []resultsfile.Run) ([]resultsfile.Run, error) {
	for _, condition := range s.where {
		key, values, ok := strings.Cut(condition, "=")
		if !ok {
			return nil, fmt.Errorf("--where %s: write key=value,value, e.g. preset=75M", condition)
		}
		if keys := keysOf(runs); !slices.Contains(keys, key) {
			return nil, fmt.Errorf("--where %s: %w", condition, param.UnknownKey(key, keys))
		}
		all := runs
		runs = slices.DeleteFunc(slices.Clone(all), func(r resultsfile.Run) bool {
			return !slices.Contains(param.Split(values), labelOf(r, key))
		})
		if len(runs) == 0 {
			var there []string
			for _, r := range all {
				if label := labelOf(r, key); !slices.Contains(there, label) {
					there = append(there, label)
				}
			}
			return nil, fmt.Errorf("--where %s: no run is left; %s is %s", condition, key, strings.Join(there, ", "))
		}
	}
	if len(runs) == 0 {
		return nil, errors.New("there are no runs in it")
	}
	return runs, nil
}

// bySeed puts together the runs that differ in their seed alone.
func bySeed(runs []resultsfile.Run) (groups [][]resultsfile.Run) {
	at := map[string]int{}
	for _, r := range runs {
		i, ok := at[r.Same()]
		if !ok {
			i = len(groups)
			at[r.Same()], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	return groups
}

// keysOf are those that can name rows of runs.
func keysOf(runs []resultsfile.Run) []string {
	all := []string{"model", "hardware", "dataset"}
	parameters := map[string]bool{}
	for _, r := range runs {
		for key := range r.Parameters {
			parameters[key] = true
		}
	}
	return append(all, slices.Sorted(maps.Keys(parameters))...)
}

// atDefault is the label of a parameter that a line leaves out: checkpoints have a parameter that later versions know
// only where it changes something.
const atDefault = "default"

// labelOf is the text of a key; "" where the run does not have it.
func labelOf(r resultsfile.Run, key string) string {
	switch key {
	case "model":
		return r.Model
	case "hardware":
		return r.Hardware
	case "dataset":
		if digest.Valid(r.Dataset) {
			return digest.Short(r.Dataset)
		}
		return r.Dataset
	}
	if r.Parameters[key] == nil && len(r.Parameters) > 0 {
		return atDefault
	}
	var text string
	if json.Unmarshal(r.Parameters[key], &text) == nil {
		return text
	}
	var b bytes.Buffer
	_ = json.Compact(&b, r.Parameters[key]) // it was read from JSON
	return b.String()
}

// labelsOf are the keys that tell rows apart: the model, and what differs between the rows where the model is not
// enough.
func labelsOf(groups [][]resultsfile.Run) []string {
	var first []resultsfile.Run
	models := map[string]bool{}
	for _, group := range groups {
		first = append(first, group[0])
		models[group[0].Model] = true
	}
	keys := []string{"model"}
	if len(models) == len(groups) {
		return keys
	}
	if len(models) == 1 {
		keys = nil
	}
	for _, key := range []string{"hardware", "dataset"} {
		if slices.ContainsFunc(first, func(r resultsfile.Run) bool { return labelOf(r, key) != labelOf(first[0], key) }) {
			keys = append(keys, key)
		}
	}
	return append(keys, resultsfile.Differing(first)...)
}

// measuredOf are the numbers of a run by the keys of their columns, in the columns' units.
func measuredOf(r resultsfile.Run) map[string]float64 {
	all := maps.Clone(r.Results)
	all["tokens"] = float64(r.Tokens) / 1e6
	if bytes, packed := all["pack_bytes"]; packed {
		all["megabytes"] = bytes / 1e6
	}
	if r.Steps > 0 {
		all["steps"] = float64(r.Steps)
	}
	if r.Seconds > 0 {
		all["seconds"], all["tokens_per_second"] = r.Seconds, float64(r.Tokens)/r.Seconds/1e3
	}
	return all
}

// chosen are the columns of the table: those that --columns names, or those that most tables need.
func (s selection) chosen(rows []seedRow) (columns []column, err error) {
	has := func(key string) bool {
		return slices.ContainsFunc(rows, func(r seedRow) bool { return len(r.values[key]) > 0 })
	}
	keys := s.columns
	if len(keys) == 0 {
		keys = []string{seedsColumn.Key}
		keys = append(keys, slices.DeleteFunc(slices.Clone(losses), func(key string) bool { return !has(key) })...)
		if slices.ContainsFunc(rows, func(r seedRow) bool { return r.seeds > 2 }) { // of two, the median is the mean
			keys = append(keys, medianColumn.Key)
		}
		if s.baseline != "" {
			keys = append(keys, differenceColumn.Key)
		}
		keys = append(keys, slices.DeleteFunc([]string{"tokens", "seconds"}, func(key string) bool { return !has(key) })...)
	}
	all := []string{seedsColumn.Key, medianColumn.Key, differenceColumn.Key}
	for _, r := range rows {
		for key := range r.values {
			if !slices.Contains(all, key) {
				all = append(all, key)
			}
		}
	}
	slices.Sort(all)
	for _, key := range keys {
		if !slices.Contains(all, key) {
			return nil, fmt.Errorf("--columns %s: %w", key, param.UnknownKey(key, all))
		}
		columns = append(columns, columnOf(key))
	}
	return columns, nil
}

func columnOf(key string) column {
	if i := slices.IndexFunc(known, func(k column) bool { return k.Key == key }); i >= 0 {
		return known[i]
	}
	return column{Key: key, Name: key, Value: results.Template("{" + key + ":.3}")}
}

// sort brings the rows into the order of the main column if that is a loss, the lowest first and those without a value
// last.
func (o overSeeds) sort() {
	main := o.main()
	place := func(r seedRow) float64 {
		mean := r.values[main.Key].Mean()
		switch {
		case main.Better == "":
			return 0
		case math.IsNaN(mean):
			return math.Inf(1)
		}
		return mean
	}
	slices.SortStableFunc(o.rows, func(a, b seedRow) int { return cmp.Compare(place(a), place(b)) })
}
