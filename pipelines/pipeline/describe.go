package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/pipeline/pipelinefile"
	"bitnet1/pipelines/pipeline/process"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/results"
	"bitnet1/shared/run/stage"
)

// plannedStage is a stage of the run and how to start it.
type plannedStage struct {
	stage.Description
	command []string
	foreign bool // the pipeline file says how to start it
	workers int
	serving func(worker int) []string // flags
}

func (s plannedStage) program(events bus.Address) process.Stage {
	return process.Stage{Name: s.Name, Command: s.command, Address: events, Flags: s.serving}
}

// describe finds a stage's program and what the stage takes and gives.
func describe(ctx context.Context, c *cli.Context, file *pipelinefile.File, name string) (plannedStage, error) {
	s := plannedStage{
		command: file.Commands[name], foreign: len(file.Commands[name]) > 0, workers: max(file.Workers[name], 1),
		serving: func(worker int) []string { return file.ServingFlags(name, worker) },
	}
	if len(s.command) == 0 {
		program, err := ownProgram(c, name)
		if err != nil {
			return s, err
		}
		s.command = []string{program}
	}
	said, err := results.Describe(ctx, name, s.command...)
	if err != nil {
		return s, fmt.Errorf("stage %s: %w", name, err)
	}
	if err := json.Unmarshal(said, &s.Description); err != nil || s.Kind == "" {
		return s, fmt.Errorf("stage %s: what %s is not a description (docs/pipelines.md says what one holds)", name,
			s.describedBy(name))
	}
	if s.Name != name {
		return s, fmt.Errorf("stage %s: its program calls itself %s", name, s.Name)
	}
	if name == bus.LauncherName || name == bus.ViewerName {
		return s, fmt.Errorf("stage %s: a user of the event server has this name: give the stage another", name)
	}
	return s, s.Declaration().Check()
}

// describedBy says where the description of a stage comes from.
func (s plannedStage) describedBy(name string) string {
	if path, ok := results.DescriptionFile(name, s.command...); ok {
		return path + " holds"
	}
	return fmt.Sprintf("%q prints", strings.Join(s.command, " ")+" describe")
}

// ownProgram is the program of a stage for which the pipeline file names no command.
func ownProgram(c *cli.Context, name string) (string, error) {
	dir := c.String("stages-dir")
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		dir = filepath.Dir(self)
	}
	program := filepath.Join(dir, name)
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("stage %s has no program %s: build it (task build), or say under commands how to start it",
			name, program)
	}
	return program, nil
}

// checkParameters has the stage's program check parameters, a JSON object, beyond their types. A stage that is
// described by a file has no further check.
func (s plannedStage) checkParameters(ctx context.Context, section []byte) error {
	if _, ok := results.DescriptionFile(s.Name, s.command...); ok {
		return nil
	}
	cmd := exec.CommandContext(ctx, s.command[0], append(slices.Clone(s.command[1:]), "describe", "--check")...)
	var stderr bytes.Buffer
	cmd.Env = append(os.Environ(), command.EnvLauncher+"=1") // it advises in the form of a launcher's flags
	cmd.Stdin, cmd.Stderr = bytes.NewReader(section), &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimPrefix(strings.TrimSpace(stderr.String()), s.Name+": ") // a program begins with its name
		return errors.New(cmp.Or(said, err.Error()))
	}
	return nil
}
