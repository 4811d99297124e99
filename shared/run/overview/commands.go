package overview

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/journal"
)

// CommandsPath is the file of a run's command lines.
func CommandsPath(j journal.Journal, run string) string {
	return filepath.Join(j.RunDir(run), "launcher", "commands.txt")
}

// Commands are the command lines that began the run and went on with it, each once, in the order in which they were
// first given. A run of an older version has kept none.
func Commands(j journal.Journal, run string) ([]string, error) {
	path := CommandsPath(j, run)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		text, err = digest.CutChecksum(text)
	}
	if err == nil && !bytes.HasSuffix(text, []byte("\n")) { // it has lost its end, and the checksum with it
		err = digest.ErrChecksum
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return slices.Collect(nonEmptyLines(string(text))), nil
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
	if errors.Is(err, digest.ErrChecksum) {
		err = nil // the commands before are lost
	}
	if err != nil || slices.Contains(have, line) {
		return err
	}
	text := strings.Join(append(have, line), "\n") + "\n"
	return artifact.WriteFile(CommandsPath(j, run), digest.AppendChecksum([]byte(text)))
}

// ReportPath is the file of a run's report, which `report` writes.
func ReportPath(j journal.Journal, run string) string {
	return filepath.Join(j.RunDir(run), "report", "report.html")
}
