package command

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/param"
)

// Main runs a program until it has ended, and returns its exit status. Ctrl-C and SIGTERM end the program's context.
func Main(app *cli.App, args []string) int {
	cli.HelpPrinter = PrintHelp
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return ExitStatus(app.Name, app.RunContext(ctx, args), os.Stderr)
}

// OnUsageError is that of programs without commands: it names the flag that is nearest to one that there is not.
func OnUsageError(c *cli.Context, err error, _ bool) error {
	return UsageError(param.FlagError(err, c.App.Flags))
}
