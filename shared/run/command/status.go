// Package command is what the command lines of the project's programs have in common: exit statuses, the order of
// arguments, flags that launcher and stages share, and what an error means for whoever gave the command. It knows no
// program's own flags; package param makes flags of a stage's parameters.
package command

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/bus"
)

// Exit statuses of every program of the project.
const (
	Done   = 0
	Failed = 1
	Usage  = 2

	// Unusable is the status of a serving stage that the event server, its store or the disk has kept from working for as
	// long as --outage allows.
	Unusable = 3
)

// usageError is the user's mistake on the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// UsageError marks err as the user's mistake on the command line.
func UsageError(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// Usagef is UsageError of a formatted error.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// ExitStatus prints err, if any, with what its user can do, and returns the exit status that err stands for.
func ExitStatus(program string, err error, stderr io.Writer) int {
	if err == nil {
		return Done
	}
	fmt.Fprintf(stderr, "%s: %v\n", program, Advised(err))
	switch {
	case errors.As(err, new(usageError)):
		return Usage
	case bus.IsUnusable(err):
		return Unusable
	}
	return Failed
}

// EnvLauncher is set for stages that a launcher started: they end when their standard input does, so that they never
// outlive the launcher.
const EnvLauncher = "BITNET1_LAUNCHER"

// EnvOutage is the environment's word for --outage.
const EnvOutage = "BITNET1_OUTAGE"

// EnvAckWait is the environment's word for a stage's --ack-wait: a launcher hands it on to the stages that it starts.
const EnvAckWait = "BITNET1_ACK_WAIT"

// OutageFlag says how long what a run needs may be away. Launcher and stages have it.
func OutageFlag() cli.Flag {
	return &cli.DurationFlag{
		Name: "outage", Value: bus.Patience, EnvVars: []string{EnvOutage},
		Usage: "how long the event server, its store or the disk may be unusable before this program ends",
	}
}
