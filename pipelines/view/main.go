// Command view serves a page that shows the runs of a data directory while they go on and afterwards: their states,
// curves, results, attention heads and texts. It writes nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"bitnet1/pipelines/view/index"
	"bitnet1/pipelines/view/server"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/overview"
	"bitnet1/shared/run/web"
)

func main() {
	cli.HelpPrinter = command.PrintHelp
	app := &cli.App{
		Name: "view", Usage: "show the runs of a data directory in a browser", HideVersion: true,
		UsageText: "view [flags]",
		Description: "Serves a page on this machine and prints its address; Ctrl-C ends it. Nothing is written, and " +
			"nothing is loaded from elsewhere.\n\nExample:\n   view --data ./data",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "data", Value: "./data", EnvVars: []string{"BITNET1_DATA"},
				Usage: "data `DIR`ectory: artifacts, runs, events"},
			&cli.StringFlag{Name: "addr", Usage: "`HOST:PORT` to serve on; port 0: any free one. Whoever reaches the " +
				"address can read all runs (default: " + usual + ", or any free port where that is taken)"},
		},
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   command.OnUsageError,
		Action:         view,
	}
	os.Exit(command.ExitStatus("view", app.Run(os.Args), os.Stderr))
}

// usual is the address of the page unless another program has it. A page that was left open shows the next run, too.
const usual = "127.0.0.1:7177"

func view(c *cli.Context) error {
	if c.NArg() > 0 {
		return command.UsageError(fmt.Errorf("unknown argument %q: view takes flags alone", c.Args().First()))
	}
	x, err := index.Open(c.String("data"))
	if err != nil {
		return fmt.Errorf("%w: choose another with --data or BITNET1_DATA", err)
	}
	listener, host, err := listen(c.String("addr"))
	if err != nil {
		return err
	}
	s := server.New(x, artifact.DirectoryName(c.String("data")), host)
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv(command.EnvLauncher) != "" { // which may be killed
		go func() { _, _ = io.Copy(io.Discard, os.Stdin); stop() }()
	}
	h := web.Server(s)
	h.BaseContext = func(net.Listener) context.Context { return ctx }
	context.AfterFunc(ctx, func() { _ = h.Close() })
	fmt.Fprintf(c.App.Writer, "http://%s\n", listener.Addr())
	if events := bus.AddressFrom(os.Getenv); events.URL != "" {
		go hear(ctx, events, c.String("data"), x)
	}
	go func() { _ = s.Refresh() }() // so that the first page need not wait; it meets the same error
	if err := h.Serve(web.Listener(listener)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listen returns also the name of this machine that an address has.
func listen(address string) (l net.Listener, host string, err error) {
	if address == "" {
		if l, err = net.Listen("tcp", usual); err != nil {
			l, err = net.Listen("tcp", "127.0.0.1:0")
		}
		return l, "localhost", err
	}
	if host, _, err = net.SplitHostPort(address); err != nil {
		return nil, "", command.UsageError(fmt.Errorf("--addr %s: want HOST:PORT: %w", address, err))
	}
	if l, err = net.Listen("tcp", address); err != nil {
		err = fmt.Errorf("--addr %s: %w: choose another port, or 0 for any free one", address, err)
	}
	return l, host, err
}

// hear brings what stages say of their work into the index: of the run that a launcher drives, until ctx ends. Without
// an event server the page shows what files say, which is less.
func hear(ctx context.Context, events bus.Address, data string, x *index.Index) {
	var b *bus.Bus
	heard, stop := "", context.CancelFunc(func() {})
	for ; ctx.Err() == nil; sleep(ctx, time.Second) {
		if b == nil {
			var err error
			if b, err = bus.Connect(ctx, events, "view"); err != nil {
				continue
			}
			defer b.Close()
		}
		run := overview.Driven(data)
		if run == heard {
			continue
		}
		stop()
		if heard = run; run == "" {
			continue
		}
		var of context.Context
		of, stop = context.WithCancel(ctx)
		if b.Watch(of, run, func(p bus.Progress) { x.Hear(run, p) }) != nil {
			heard = "" // again
		}
	}
	stop()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
