package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"bitnet1/shared/measure/history"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/param"
	"bitnet1/shared/run/results"
)

// commandsSection is the commands that made the runs and this report.
func commandsSection(runs []*history.Run) section {
	s := section{ID: "commands", Title: "Commands"}
	for _, r := range runs {
		lines := r.Commands
		if len(lines) == 0 && r.Definition != nil {
			s.Text = append(s.Text, "The command of "+r.ID+" was not kept. Its parameters are above, its pipeline is "+
				r.Definition.Name+", its preset "+r.Definition.Preset+".")
		}
		lines = append(lines[:len(lines):len(lines)], reruns(r)...)
		if len(lines) > 0 {
			s.Commands = append(s.Commands, strings.Join(lines, "\n"))
		}
	}
	again := "report --run " + command.Quoted(runs[0].ID)
	for _, r := range runs[1:] {
		again += " --compare " + command.Quoted(r.ID)
	}
	s.Commands = append(s.Commands, again)
	return s
}

// reruns are the commands that found the results with other parameters than the run's own.
func reruns(r *history.Run) (lines []string) {
	for _, t := range r.Tables {
		for _, row := range t.Others {
			flags := flagsOf(r, row)
			for _, stage := range slices.Sorted(maps.Keys(flags)) {
				line := fmt.Sprintf("%s run --run %s --checkpoint %s%s", stage, command.Quoted(r.ID), command.Quoted(row.Name),
					flags[stage])
				if slices.Contains(t.Stages, stage) && !slices.Contains(lines, line) {
					lines = append(lines, line)
				}
			}
		}
	}
	return lines
}

// flagsOf are the flags of the commands that filled a row, by stage.
func flagsOf(r *history.Run, row *results.Row) map[string]string {
	flags := map[string]string{}
	add := func(stage, key, value string) {
		flags[stage] += fmt.Sprintf(" --%s=%s", strings.ReplaceAll(key, "_", "-"), command.Quoted(value))
	}
	for _, full := range slices.Sorted(maps.Keys(row.Overrides)) {
		stage, key, _ := strings.Cut(full, ".")
		add(stage, key, row.Overrides[full])
	}
	for _, f := range r.Files {
		if maps.Equal(f.Overrides, row.Overrides) {
			for _, key := range slices.Sorted(maps.Keys(f.Paths)) {
				add(f.Stage, key, param.Text(f.Paths[key]))
			}
		}
	}
	return flags
}
