package overview

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/journal"
)

func commandsPath(j journal.Journal, run string) string {
	return filepath.Join(j.RunDir(run), "launcher", "commands.txt")
}

// Commands are the command lines that began the run and went on with it, each once, in the order in which they were
// first given. A run of an older version has kept none.
func Commands(j journal.Journal, run string) ([]string, error) {
	text, err := os.ReadFile(commandsPath(j, run))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return slices.Collect(nonEmptyLines(string(text))), err
}

func nonEmptyLines(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !yield(line) {
				return
			}
		}
	}
}

// KeepCommand keeps a command line, which must hold no secret, with the run.
func KeepCommand(j journal.Journal, run, line string) error {
	have, err := Commands(j, run)
	if err != nil || slices.Contains(have, line) {
		return err
	}
	return artifact.WriteFile(commandsPath(j, run), []byte(strings.Join(append(have, line), "\n")+"\n"))
}

// ReportPath is the file of a run's report, which `report` writes.
func ReportPath(j journal.Journal, run string) string {
	return filepath.Join(j.RunDir(run), "report", "report.html")
}
