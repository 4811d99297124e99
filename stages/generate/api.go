package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/data/documents"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/web"
	"bitnet1/stages/generate/generation"
	"bitnet1/stages/generate/server"
)

func apiCommand() *cli.Command {
	return &cli.Command{
		Name: "api", Usage: "serve a packed model over HTTP: OpenAI's API, and a page to chat in",
		Description: "Programs find the API under http://ADDRESS/v1, people the page under http://ADDRESS/." +
			"\n\nExample:\n   generate api --in packed/step-000600.bit2",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "in", Usage: "`FILE` of the model: a .bit2, or a checkpoint"},
			&cli.StringFlag{Name: "name", Usage: "by which requests call the model",
				DefaultText: "the file's, without its ending"},
			&cli.StringFlag{Name: "addr", Value: "127.0.0.1:8000", Usage: "`HOST:PORT` to serve on (port 0: any " +
				"free one); a host that other machines reach needs --api-token"},
			&cli.StringFlag{Name: "api-token", EnvVars: []string{"BITNET1_API_TOKEN"}, Usage: "`TOKEN` that requests must " +
				"bring; better in the environment, since others see a command's flags"},
			&cli.IntFlag{Name: "parallel", Value: 4, Usage: "texts that are written at once; each takes the memory of " +
				"a sequence"},
			&cli.IntFlag{Name: "queue", Value: 256, Usage: "requests that may wait beside those; more are turned away"},
			&cli.Int64Flag{Name: "max-body", Value: 1 << 20, Usage: "most bytes of a request"},
			&cli.IntFlag{Name: "max-tokens", Usage: "most tokens of a text (0: as many as the context has room for)"},
			&cli.StringFlag{Name: "turn-template", Usage: "text of a turn, with {role} and {text}, as for tokenize",
				DefaultText: "{role}: {text}"},
			&cli.StringFlag{Name: "turn-separator", Usage: "text between two turns, as for tokenize",
				DefaultText: "an empty line"},
			command.ThreadsFlag("threads that compute"),
		},
		Action: runAPI,
	}
}

func runAPI(c *cli.Context) error {
	o, err := apiOptions(c)
	if err != nil {
		return command.UsageError(err)
	}
	m, err := generation.Open(c.String("in"), command.Threads(c))
	if err != nil {
		return err
	}
	defer m.Close()
	if o.Converses, err = m.Converses(o.Template); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", c.String("addr"))
	if err != nil {
		return fmt.Errorf("--addr %s: %w", c.String("addr"), err)
	}
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	fmt.Fprintf(c.App.Writer, "model   %s: step %d, context of %d tokens of %s\n", o.Name, m.Step, m.Config.Seq,
		m.Tokenizer.Name())
	fmt.Fprintf(c.App.Writer, "API     http://%s/v1\npage    http://%s/\n", l.Addr(), l.Addr())
	return server.New(m, o).Serve(ctx, l)
}

// apiOptions are what the flags say.
func apiOptions(c *cli.Context) (o server.Options, err error) {
	if c.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: the model is given by --in", c.Args().First())
	}
	if !c.IsSet("in") {
		return o, errors.New("say which model: --in FILE")
	}
	in := c.String("in")
	o = server.Options{
		Name: c.String("name"), Token: c.String("api-token"), Generators: c.Int("parallel"), Queue: c.Int("queue"),
		MaxBody: c.Int64("max-body"), MaxTokens: c.Int("max-tokens"),
		Template: documents.Template{Turn: c.String("turn-template"), Between: c.String("turn-separator")},
	}
	if o.Name == "" {
		o.Name = strings.TrimSuffix(filepath.Base(in), filepath.Ext(in))
	}
	for flag, n := range map[string]int64{
		"parallel": int64(o.Generators), "queue": int64(o.Queue), "max-body": o.MaxBody,
	} {
		if n < 1 {
			return o, fmt.Errorf("--%s %d: it must be positive", flag, n)
		}
	}
	if o.MaxTokens < 0 {
		return o, fmt.Errorf("--max-tokens %d: it must not be negative", o.MaxTokens)
	}
	if err := (documents.Options{Template: o.Template}).Validate(); err != nil {
		return o, err
	}
	host, _, err := net.SplitHostPort(c.String("addr"))
	if err != nil {
		return o, fmt.Errorf("--addr %s: %w", c.String("addr"), err)
	}
	if o.Token == "" && !web.IsLoopback(host) {
		return o, fmt.Errorf("--addr %s lets other machines in: set BITNET1_API_TOKEN to a secret that requests must bring, "+
			"or serve on 127.0.0.1", c.String("addr"))
	}
	if info, err := os.Stat(in); err == nil {
		o.Created = info.ModTime()
	}
	return o, nil
}
