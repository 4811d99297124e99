package command

import (
	"fmt"
	"strings"

	"bitnet1/shared/run/param"
)

// NoSuchRun is the error for a run that is not among those there are.
func NoSuchRun(run string, runs []string) error {
	if near, ok := param.Nearest(run, runs); ok {
		return fmt.Errorf("there is no run %s in this data directory: did you mean %s?", run, near)
	}
	if len(runs) == 0 {
		return fmt.Errorf("there is no run %s in this data directory, and no other: name the directory with --data", run)
	}
	return fmt.Errorf("there is no run %s in this data directory; the runs are: %s (--data names another directory)", run,
		strings.Join(runs, ", "))
}
