package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/plot"
	"bitnet1/shared/run/command"
)

func plotCommand() *cli.Command {
	return &cli.Command{
		Name: "plot", Usage: "draw a result of results files over another one", ArgsUsage: "FILE …",
		Description: "A point is the mean over the seeds of a row, as `experiment table` has it. A row has several points " +
			"where it has several\nforms of both results: megabytes_4_bit belongs to bits_per_token_4_bit. " +
			"A row that lacks one of the results is not drawn.\n\n" +
			"Example:\n   experiment plot --x megabytes --out size.png docs/recipes/v77.jsonl",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "x", Usage: "`KEY` of the horizontal axis, such as megabytes or seconds"},
			&cli.StringFlag{Name: "y", Value: "bits_per_token", Usage: "`KEY` of the vertical axis"},
			&cli.StringFlag{Name: "rows", Usage: "`KEYS` that name a row (default: model, and what differs between the rows)"},
			&cli.StringSliceFlag{Name: "where", Usage: "only runs with this `KEY=VALUE,VALUE`; give one flag for each key"},
			&cli.StringFlag{Name: "out", Usage: "`FILE` of the picture: .png or .svg"},
		},
		Before: command.Required("x KEY", "out FILE.png"),
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return command.UsageError(errors.New("give a results file: experiment plot --x KEY --out FILE.png FILE"))
			}
			runs, err := readResults(c.Args().Slice())
			if err != nil {
				return err
			}
			o, err := rowsOf(runs, selection{rows: list(c.String("rows")), where: c.StringSlice("where")})
			if err != nil {
				return command.UsageError(err)
			}
			all, err := pointsOf(o, c.String("x"), c.String("y"))
			if err != nil {
				return command.UsageError(err)
			}
			return drawPoints(all, columnOf(c.String("x")).Name, columnOf(c.String("y")).Name, c.String("out"))
		},
	}
}

// points are those of a row, from left to right.
type points struct {
	label string
	at    []plot.Point
	forms []string // what distinguishes a row's points, such as "4 bit"
}

// pointsOf pairs the results of each row whose keys are x and y with the same end.
func pointsOf(o overSeeds, x, y string) (all []points, err error) {
	for _, r := range o.rows {
		p := points{label: o.inLegend(r)}
		keys := slices.DeleteFunc(slices.Collect(maps.Keys(r.values)), func(key string) bool {
			return !strings.HasPrefix(key, x) || len(r.values[y+key[len(x):]]) == 0
		})
		slices.SortFunc(keys, func(a, b string) int {
			if r.values[a].Mean() < r.values[b].Mean() {
				return -1
			}
			return 1
		})
		for _, key := range keys {
			form := key[len(x):]
			p.at = append(p.at, plot.Point{X: r.values[key].Mean(), Y: r.values[y+form].Mean()})
			p.forms = append(p.forms, strings.TrimSpace(strings.ReplaceAll(form, "_", " ")))
		}
		if len(keys) > 0 {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no row has both %s and %s: `experiment table` lists the results that there are", x, y)
	}
	return all, nil
}

// inLegend names a row for people: the model, and the other labels in which it differs from a row of the same model.
func (o overSeeds) inLegend(r seedRow) string {
	model := slices.IndexFunc(o.labels, func(c column) bool { return c.Name == "model" })
	var parts []string
	for i, label := range r.labels {
		another := func(other seedRow) bool {
			return (model < 0 || other.labels[model] == r.labels[model]) && other.labels[i] != label
		}
		switch {
		case i == model:
			parts = append(parts, label)
		case slices.ContainsFunc(o.rows, another):
			parts = append(parts, strings.ReplaceAll(o.labels[i].Name, "_", " ")+" "+label)
		}
	}
	return strings.Join(parts, ", ")
}

// drawPoints draws rows into a file whose ending is the picture's format. The form of a point stands above it.
func drawPoints(all []points, x, y, file string) error {
	f := plot.Lines{X: plot.Axis{Label: x}, Y: plot.Axis{Label: y}}
	var at []plot.Point
	for i, row := range all {
		s := plot.Series{Name: row.label, Color: i, Dots: row.at, Labels: row.forms}
		if len(row.at) > 1 {
			s.Line = row.at
		}
		f.Series = append(f.Series, s)
		at = append(at, row.at...)
	}
	byX := func(a, b plot.Point) int { return cmp.Compare(a.X, b.X) }
	byY := func(a, b plot.Point) int { return cmp.Compare(a.Y, b.Y) }
	f.X.Max = slices.MaxFunc(at, byX).X * 1.1 // room for names
	f.Y.Min, f.Y.Max = slices.MinFunc(at, byY).Y, slices.MaxFunc(at, byY).Y
	above := (f.Y.Max - f.Y.Min) / 10
	f.Y.Min, f.Y.Max = f.Y.Min-above, f.Y.Max+above
	err := plot.Write(file, f, y+" over "+x)
	if format := new(plot.FormatError); errors.As(err, format) {
		return command.UsageError(fmt.Errorf("--out %w", err))
	}
	return err
}
