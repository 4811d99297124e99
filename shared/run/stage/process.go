package stage

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/command"
)

var errStopped = errors.New("stopped by a signal: the same command, without --force, continues from what is saved")

// signalContext ends on SIGINT, SIGTERM and, for a stage that a launcher started, when the launcher is gone. A second
// signal ends the process at once.
func signalContext(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-signals:
			}
			if ctx.Err() != nil {
				os.Exit(command.Failed)
			}
			cancel(errStopped)
		}
	}()
	if os.Getenv(command.EnvLauncher) != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel(errStopped)
		}()
	}
	return ctx, func() { signal.Stop(signals); close(done); cancel(nil) }
}

func logger(c *cli.Context, stderr io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, command.Usagef("--log-level %s: use debug, info, warn or error", c.String("log-level"))
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: nameNotes}
	if c.Bool("json") || os.Getenv(command.EnvLauncher) != "" {
		return slog.New(slog.NewJSONHandler(stderr, opts)), nil
	}
	return slog.New(slog.NewTextHandler(stderr, opts)), nil
}

// levelNote is the level of what a launcher shows to whoever watches, without being a warning.
const levelNote = slog.LevelInfo + 1

func nameNotes(groups []string, a slog.Attr) slog.Attr {
	if level, ok := a.Value.Any().(slog.Level); ok && len(groups) == 0 && a.Key == slog.LevelKey && level == levelNote {
		a.Value = slog.StringValue("NOTE")
	}
	return a
}
