package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/event"
	"bitnet1/shared/journal"
	"bitnet1/shared/stage"
)

// row is what is known of one checkpoint.
type row struct {
	Step           int     `json:"step"`
	TrainBits      float64 `json:"train_bits"`
	BitsPerToken   float64 `json:"bits_per_token"`
	BitsPerByte    float64 `json:"bits_per_byte"`
	UnigramEntropy float64 `json:"unigram_entropy"`
	BestHead       string  `json:"best_head"`
	IPMR           float64 `json:"ipmr"`
	CopyAccuracy   float64 `json:"copy_accuracy"`
	PackBytes      int64   `json:"pack_bytes"`
	Best           bool    `json:"best"`

	evaluated, probed bool
}

// rows reads the checkpoints of a run from its journal, in order of their step.
func rows(j journal.Journal, run string) ([]row, error) {
	byStep := map[int]*row{}
	at := func(step int) *row {
		if byStep[step] == nil {
			byStep[step] = &row{Step: step}
		}
		return byStep[step]
	}
	if err := each(j, run, func(e event.CheckpointSaved) {
		r := at(e.Step)
		r.TrainBits, r.Best = e.TrainBits, e.Best
	}); err != nil {
		return nil, err
	}
	if err := each(j, run, func(e event.EvaluationWritten) {
		r := at(e.Step)
		r.BitsPerToken, r.BitsPerByte, r.UnigramEntropy, r.evaluated = e.BitsPerToken, e.BitsPerByte, e.UnigramEntropy, true
	}); err != nil {
		return nil, err
	}
	if err := each(j, run, func(e event.ProbeWritten) {
		r := at(e.Step)
		r.BestHead, r.IPMR, r.CopyAccuracy, r.probed = fmt.Sprintf("L%d.H%d", e.TopLayer, e.TopHead), e.TopIPMR, e.CopyAccuracy, true
	}); err != nil {
		return nil, err
	}
	if err := each(j, run, func(e event.PackWritten) { at(e.Step).PackBytes = e.Pack.Size }); err != nil {
		return nil, err
	}
	var all []row
	best := -1
	for i, step := range slices.Sorted(maps.Keys(byStep)) {
		r := *byStep[step]
		if r.Best { // so far, when it was saved
			best = i
		}
		r.Best = false
		all = append(all, r)
	}
	if best >= 0 {
		all[best].Best = true
	}
	return all, nil
}

// each calls f for every event of B's kind in the run, the oldest first.
func each[B event.Body](j journal.Journal, run string, f func(B)) error {
	bodies, err := journal.Bodies[B](j, run)
	for _, b := range bodies {
		f(b)
	}
	return err
}

// summary prints the table of checkpoints and how to look further.
func (l *launcher) summary(c *cli.Context) error {
	return printSummary(c, l.journal, l.run)
}

func printSummary(c *cli.Context, j journal.Journal, run string) error {
	all, err := rows(j, run)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"type": "summary", "run": run, "checkpoints": all})
	}
	writeTable(c.App.Writer, all)
	writeHints(c.App.Writer, j, run)
	return nil
}

func writeTable(out io.Writer, all []row) {
	if len(all) == 0 {
		fmt.Fprintln(out, "\nno checkpoints")
		return
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "checkpoint\ttraining\tbits/token\tbits/byte\tunigram\tbest head\tIPMR\tcopied\t.bit2\t\t")
	for _, r := range all {
		fmt.Fprintf(w, "%d\t%.3f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.Step, r.TrainBits,
			number(r.evaluated, "%.3f", r.BitsPerToken), number(r.evaluated, "%.3f", r.BitsPerByte), number(r.evaluated, "%.3f", r.UnigramEntropy),
			r.BestHead, number(r.probed, "%.1f %%", 100*r.IPMR), number(r.probed, "%.1f %%", 100*r.CopyAccuracy),
			packSize(r.PackBytes), mark(r.Best, "best"))
	}
	w.Flush()
}

func number(known bool, format string, v float64) string {
	if !known {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func packSize(n int64) string {
	if n == 0 {
		return "-"
	}
	return byteSize(n)
}

func writeHints(out io.Writer, j journal.Journal, run string) {
	fmt.Fprintf(out, `
Look further:
  everything this run made   %s
  its table again            task runs -- %s
  one stage again            task probe -- --run %s --checkpoint all --force
`, j.RunDir(run), run, run)
}

func runsCommand() *cli.Command {
	return &cli.Command{
		Name: "runs", Usage: "list the runs, or show the table of one", ArgsUsage: "[RUN]",
		Description: "Example:\n   pipeline runs",
		Flags:       []cli.Flag{dataFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			j := journal.Open(c.String("data"))
			if c.NArg() == 1 {
				return showRun(c, j, c.Args().First())
			}
			return listRuns(c, j)
		},
	}
}

func showRun(c *cli.Context, j journal.Journal, run string) error {
	runs, err := j.Runs()
	if err != nil {
		return err
	}
	if !slices.Contains(runs, run) {
		return stage.NoSuchRun(run, runs)
	}
	return printSummary(c, j, run)
}

func listRuns(c *cli.Context, j journal.Journal) error {
	runs, err := j.Runs()
	if err != nil {
		return err
	}
	if len(runs) == 0 && !c.Bool("json") {
		fmt.Fprintf(c.App.Writer, "no runs in %s: start one with task pipeline:v76\n", c.String("data"))
		return nil
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for _, run := range runs {
		if err := listRun(c, w, j, run); err != nil {
			return err
		}
	}
	return w.Flush()
}

func listRun(c *cli.Context, w io.Writer, j journal.Journal, run string) error {
	started, err := j.Read(run, event.RunStarted{}.Kind())
	if err != nil {
		return err
	}
	done, err := finished(j, run)
	if err != nil {
		return err
	}
	all, err := rows(j, run)
	if err != nil {
		return err
	}
	state := "unfinished"
	if done {
		state = "finished"
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"run": run, "state": state, "started": started[0].Time, "checkpoints": all})
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%d checkpoints\t%s\n", run, state,
		time.UnixMilli(started[0].Time).Format("2006-01-02 15:04"), len(all), bestOf(all))
	return nil
}

func bestOf(all []row) string {
	best := ""
	lowest := 0.0
	for _, r := range all {
		if r.evaluated && (best == "" || r.BitsPerToken < lowest) {
			lowest = r.BitsPerToken
			best = fmt.Sprintf("best %.3f bits/token at step %d", r.BitsPerToken, r.Step)
		}
	}
	return best
}
