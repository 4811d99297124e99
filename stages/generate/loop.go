package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"

	"bitnet1/shared/run/param"
	"bitnet1/shared/run/terminal"
	"bitnet1/stages/generate/generation"
)

// chat is a chat in a terminal, or over pipes: what the model writes goes to out, all else to notes.
type chat struct {
	params    Params
	generator *generation.Generator
	talk      talk
	out       *screen
	notes     io.Writer
	typed     bool // a person types: there is a prompt, and Ctrl-C stops an answer

	mu         sync.Mutex
	stopAnswer context.CancelFunc // nil while there is no answer at work
}

// note writes a line for the user, in the width of the terminal.
func (t *chat) note(format string, args ...any) {
	fmt.Fprintln(t.notes, terminal.Fit(fmt.Sprintf(format, args...), terminal.Width(t.notes)))
}

func (t *chat) introduce(m *generation.Model, converses bool) {
	if !t.typed {
		return
	}
	does := "It continues your text, for it has learned no conversations (--mode conversation has it try)."
	if converses {
		does = "It answers you."
	}
	t.note("A model of step %d, with a context of %d tokens (%s). %s /help lists commands, Ctrl-D ends the chat.", m.Step,
		m.Config.Seq, m.Tokenizer.Name(), does)
}

// ask shows where a person types.
func (t *chat) ask(prompt string) {
	if t.typed {
		fmt.Fprint(t.notes, prompt)
	}
}

// loop answers lines until there are no more.
func (t *chat) loop(ctx context.Context, in io.Reader) error {
	if t.typed {
		defer t.catchInterrupts()()
	}
	lines := newLines(in, t.typed)
	for {
		t.ask("> ")
		message, err := lines.message(func() { t.ask(". ") })
		name, isCommand := strings.CutPrefix(message, "/")
		switch {
		case err == io.EOF:
			t.ask("\n")
			return nil
		case err == errLongLine, err == errCutLine:
			t.note("%v", err)
		case err != nil:
			return err
		case isCommand:
			if err := t.command(name); err == errEnd {
				return nil
			} else if err != nil {
				t.note("%v", err)
			}
		default:
			if err := t.answer(ctx, message); err != nil {
				return err
			}
		}
	}
}

// answer writes the model's answer to a message. Of errors it returns those after which the chat cannot go on.
func (t *chat) answer(ctx context.Context, message string) error {
	prompt, stop, note, err := t.talk.ask(message, t.params.Tokens)
	if note != "" {
		t.note("(%s)", note)
	}
	if err != nil {
		t.note("%v", err)
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.stopsWith(cancel)
	defer t.stopsWith(nil)
	o := t.params.options()
	o.Stop = append(slices.Clone(o.Stop), stop...)
	begun := false
	r, err := t.generator.Generate(ctx, prompt, o, func(p generation.Piece) error {
		if !begun {
			p.Text = t.talk.begin(p.Text)
			begun = p.Text != ""
		}
		return t.out.write(p.Text)
	})
	if ended := t.out.write("\n"); ended != nil {
		return ended
	}
	switch {
	case errors.Is(err, context.Canceled):
		t.note("(stopped)")
	case err != nil:
		return err
	case r.Finish == generation.ContextFull:
		t.note("(the context is full)")
	}
	t.talk.answered(r)
	return nil
}

var errEnd = errors.New("the chat ends")

// command does what the user asks for with a line that begins with a slash.
func (t *chat) command(line string) error {
	name, value, given := strings.Cut(strings.TrimSpace(line), " ")
	key := strings.ReplaceAll(name, "-", "_")
	switch key {
	case "help":
		t.help()
		return nil
	case "reset":
		t.talk.reset()
		return nil
	case "exit", "quit", "bye":
		return errEnd
	}
	fields := chatFields(t.params)
	i := slices.IndexFunc(fields, func(f param.Field) bool { return f.Key == key })
	if i < 0 {
		return fmt.Errorf("there is no command /%s: /help lists them (a message that begins with / has a space before it)",
			generation.Valid(name))
	}
	if given {
		p := t.params
		if err := param.Set(&p, key, value); err != nil {
			return err
		}
		if err := p.check(); err != nil {
			return err
		}
		t.params = p
		fields = chatFields(p)
	}
	t.note("%s %s", name, param.Text(fields[i].Default))
	return nil
}

// help lists the commands.
func (t *chat) help() {
	t.note("/reset  forget what was said")
	t.note("/exit  end the chat, as Ctrl-D does; Ctrl-C stops an answer")
	for _, f := range chatFields(t.params) {
		t.note("/%s %s  %s", f.Flag(), param.Text(f.Default), f.Usage)
	}
	t.note("%s", t.talk.help())
}

// chatFields are the parameters that a chat has: all that are not about prompts.
func chatFields(p Params) []param.Field {
	return slices.DeleteFunc(param.Fields(p), func(f param.Field) bool { return strings.HasSuffix(f.Key, "prompts") })
}

func (t *chat) stopsWith(cancel context.CancelFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopAnswer = cancel
}

// catchInterrupts lets Ctrl-C stop an answer in place of the program, until the function that it returns is called.
func (t *chat) catchInterrupts() (end func()) {
	interrupts, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(interrupts, os.Interrupt)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-interrupts:
			}
			t.mu.Lock()
			if t.stopAnswer != nil {
				t.stopAnswer()
			} else {
				fmt.Fprint(t.notes, "\n(Ctrl-D or /exit ends the chat)\n> ")
			}
			t.mu.Unlock()
		}
	}()
	return func() { signal.Stop(interrupts); close(done) }
}
