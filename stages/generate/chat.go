package main

import (
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"bitnet1/shared/data/documents"
	"bitnet1/shared/run/command"
	"bitnet1/shared/run/param"
	"bitnet1/stages/generate/generation"
)

// How a chat takes what the user types.
const (
	conversation = "conversation" // as the turn of a user, which the model answers
	continuation = "continuation" // as text, which the model continues
	auto         = "auto"         // as the model was trained: see generation.Model.Converses
)

func chatCommand(p Params) *cli.Command {
	p.Tokens = 256
	return &cli.Command{
		Name: "chat", Usage: "talk to a packed model in the terminal",
		Description: "A line is a message; a line that ends in \\ goes on with the next one. /help lists the commands of " +
			"a chat. Ctrl-C stops an answer, Ctrl-D ends the chat.\n\nExample:\n   generate chat --in packed/step-000600.bit2",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "in", Usage: "`FILE` of the model: a .bit2, or a checkpoint"},
			&cli.StringFlag{Name: "mode", Value: auto, Usage: "conversation: the model answers; continuation: it continues " +
				"your text; auto: what it was trained for"},
			&cli.StringFlag{Name: "turn-template", Usage: "text of a turn, with {role} and {text}, as for tokenize",
				DefaultText: "{role}: {text}"},
			&cli.StringFlag{Name: "turn-separator", Usage: "text between two turns, as for tokenize",
				DefaultText: "an empty line"},
			&cli.StringFlag{Name: "system", Usage: "`TEXT` that a conversation begins with, as the turn of the role system"},
			command.ThreadsFlag("threads that compute"),
		}, slices.DeleteFunc(param.Flags(p), func(f cli.Flag) bool { return strings.HasSuffix(f.Names()[0], "prompts") })...),
		Action: func(c *cli.Context) error {
			switch {
			case c.NArg() > 0:
				return command.Usagef("unexpected argument %q: the model is given by --in", c.Args().First())
			case !c.IsSet("in"):
				return command.Usagef("say which model: --in FILE")
			}
			if err := param.Apply(c, &p); err != nil {
				return command.UsageError(err)
			}
			if err := p.check(); err != nil {
				return command.UsageError(err)
			}
			return runChat(c, p)
		},
	}
}

func runChat(c *cli.Context, p Params) error {
	mode := c.String("mode")
	if !slices.Contains([]string{auto, conversation, continuation}, mode) {
		return command.Usagef("--mode %s: use %s, %s or %s", mode, auto, conversation, continuation)
	}
	template := documents.Template{Turn: c.String("turn-template"), Between: c.String("turn-separator")}
	if err := (documents.Options{Template: template}).Validate(); err != nil {
		return command.UsageError(err)
	}
	m, err := generation.Open(c.String("in"), command.Threads(c))
	if err != nil {
		return err
	}
	defer m.Close()
	converses := mode == conversation
	if mode == auto {
		if converses, err = m.Converses(template); err != nil {
			return err
		}
	}
	g, err := m.NewGenerator()
	if err != nil {
		return err
	}
	t := &chat{params: p, generator: g, talk: &continued{model: m}, out: newScreen(c.App.Writer), notes: os.Stderr,
		typed: term.IsTerminal(int(os.Stdin.Fd()))}
	if converses {
		t.talk = &conversed{model: m, template: template, system: c.String("system")}
	}
	t.introduce(m, converses)
	return t.loop(c.Context, os.Stdin)
}
