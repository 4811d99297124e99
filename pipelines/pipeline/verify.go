package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/integrity"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "read every file of a data directory, and name those that are damaged",
		Description: "Checked are artifacts, records and files of jobs, journals, links, the event server's files. " +
			"Nothing is changed. The exit status is 1 if a file is damaged. No launcher may use the directory " +
			"meanwhile.\n\nExample:\n   pipeline verify --data ./data",
		Flags: []cli.Flag{dataFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			unlock, found, err := findDamage(c)
			if err != nil {
				return err
			}
			defer unlock()
			for _, f := range found.Findings {
				if err := tell(c, f, "damaged", f.Problem); err != nil {
					return err
				}
			}
			if err := summarize(c, found); err != nil || len(found.Findings) == 0 {
				return err
			}
			return fmt.Errorf("%s damaged: pipeline repair --data %s makes what it can again",
				plural(len(found.Findings), "file"), c.String("data"))
		},
	}
}

func repairCommand() *cli.Command {
	return &cli.Command{
		Name: "repair", Usage: "make the damaged files of a data directory again",
		Description: "A damaged artifact or record is made again by the job that made it, in a directory of its own; " +
			"it takes its place only if it is the same. A damaged event is written again as the event server has it, or " +
			"the record of its job. What cannot be made again stays as it is, with what to type; the exit status is " +
			"then 1. No launcher may use the directory meanwhile.\n\nExample:\n   pipeline repair --data ./data",
		Flags: []cli.Flag{
			dataFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "missing", Usage: "also make artifacts again that are lost, or freed by pipeline gc"},
			&cli.StringFlag{Name: "stages-dir",
				Usage: "`DIR`ectory of the stages' programs (default: where this program is)"},
		},
		Action: func(c *cli.Context) error {
			unlock, found, err := findDamage(c)
			if err != nil {
				return err
			}
			defer unlock()
			return repair(c, found)
		},
	}
}

// findDamage checks a data directory, which no launcher uses until unlock is called.
func findDamage(c *cli.Context) (unlock func(), found *integrity.Report, err error) {
	if c.NArg() > 0 {
		return nil, nil, command.UsageError(fmt.Errorf("%s: %s takes no arguments: name the data directory with --data",
			c.Args().First(), c.Command.Name))
	}
	dir := c.String("data")
	if _, err := os.Stat(filepath.Join(dir, "objects")); err != nil {
		return nil, nil, fmt.Errorf("%s is no data directory of this project: %w", dir, err)
	}
	lock, err := lockData(dir)
	if err != nil {
		return nil, nil, err
	}
	if found, err = integrity.Find(dir); err != nil {
		lock.Close()
		return nil, nil, err
	}
	return func() { lock.Close() }, found, nil
}

func repair(c *cli.Context, found *integrity.Report) error {
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	fresh, err := os.MkdirTemp("", "bitnet1-repair-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	left := 0
	r := &integrity.Repair{
		Dir: c.String("data"), Fresh: fresh,
		Program: func(stage string) (string, error) { return ownProgram(c, stage) },
		Tell: func(f integrity.Finding, done string, problem error) {
			state := "repaired"
			if problem != nil {
				state, done = "damaged", problem.Error()
				left++
			}
			err = errors.Join(err, tell(c, f, state, done))
		},
	}
	var server *bus.Server
	var stopServer func()
	if r.Bus, server, stopServer, err = eventServer(ctx, r.Dir); err != nil {
		return err
	}
	defer stopServer()
	if repaired := r.Do(ctx, found, c.Bool("missing")); repaired != nil || err != nil {
		return errors.Join(repaired, err)
	}
	if server != nil && server.LacksHistory() {
		j := journal.Open(r.Dir)
		if _, err := restoreAll(ctx, server, j, bus.NewAnnouncer(j, r.Bus)); err != nil {
			return err
		}
	}
	if left > 0 {
		return fmt.Errorf("%s could not be repaired", plural(left, "file"))
	}
	if !c.Bool("json") {
		fmt.Fprintln(c.App.Writer, "nothing is damaged")
	}
	return nil
}

// tell says what became of a file.
func tell(c *cli.Context, f integrity.Finding, state, text string) error {
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(struct {
			Type string `json:"type"`
			integrity.Finding
			Text string `json:"text"`
		}{state, f, text})
	}
	_, err := fmt.Fprintf(c.App.Writer, "%s  %s %s: %s\n", state, f.Kind, f.Path, text)
	return err
}

// summarize says what was checked.
func summarize(c *cli.Context, r *integrity.Report) error {
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"type": "verified", "files": r.Checked,
			"bytes": r.Bytes, "damaged": len(r.Findings), "missing": len(r.Missing), "unchecked": r.Unchecked})
	}
	fmt.Fprintf(c.App.Writer, "%s checked, with %s of artifacts; %s for people alone, such as logs, have no digest\n",
		plural(r.Checked, "file"), results.Size(r.Bytes), plural(r.Unchecked, "file"))
	if len(r.Missing) > 0 {
		fmt.Fprintf(c.App.Writer, "%s not there, lost or freed by pipeline gc: pipeline repair --missing makes them\n",
			plural(len(r.Missing), "artifact"))
	}
	return nil
}
