package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"bitnet1/shared/data/source"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/overview"
)

// reportPatience bounds the time for a report: a run has ended, and nobody waits long for pictures of it.
const reportPatience = 2 * time.Minute

// report has the program beside this one write the run's report. A run without a report is no less finished, so a
// failure is only told.
func (l *launcher) report(ctx context.Context) {
	path := program("report")
	if !hasFile(path) { // not built, such as where somebody installed the launcher alone
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reportPatience)
	defer cancel()
	var said strings.Builder
	cmd := exec.CommandContext(ctx, absolute(path), "--data", l.store.Dir(), "--run", l.run)
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		l.screen.warn("report", fmt.Sprintf("no report was written: %s (%v)", strings.TrimSpace(said.String()), err))
	}
}

// reportOf is the file of a run's report, empty where none was written.
func reportOf(j journal.Journal, run string) string {
	if path := overview.ReportPath(j, run); hasFile(path) {
		return path
	}
	return ""
}

// commandLine is the command of this program with arguments, without the secrets of sources.
func commandLine(args []string) string {
	words := []string{"pipeline"}
	for _, arg := range args {
		words = append(words, command.Quoted(source.Shown(arg)))
	}
	return strings.Join(words, " ")
}
