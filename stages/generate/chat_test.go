package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/data/documents"
	"bitnet1/stages/generate/generation"
)

// writing is a model that answers as the chat's does.
type writing struct {
	t *testing.T
	*generation.Model
	*generation.Generator
}

func newWriting(t *testing.T, path string) writing {
	t.Helper()
	m, err := generation.Open(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	g, err := m.NewGenerator()
	if err != nil {
		t.Fatal(err)
	}
	return writing{t, m, g}
}

func (w writing) write(prompt []int32, p Params, stop ...string) generation.Result {
	w.t.Helper()
	o := p.options()
	o.Stop = stop
	r, err := w.Generate(w.t.Context(), prompt, o, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// A model that answers reads what was said before, and commands change how it answers. Only answers go to standard
// output.
func TestConversation(t *testing.T) {
	path := packed(t, 300)
	w, p := newWriting(t, path), Params{Tokens: 6, Temperature: 1, Seed: 3}
	var turns []documents.Turn
	say := func(message string) string {
		turns = append(turns, documents.Turn{Role: generation.User, Text: message})
		prompt, stop := w.Conversation(documents.Template{}, turns)
		r := w.write(prompt, p, stop...)
		turns = append(turns, documents.Turn{Role: generation.Assistant, Text: strings.TrimSpace(r.Text)})
		return strings.TrimLeft(r.Text, " \n") + "\n"
	}
	want := say("Hello") + say("Who\nare \xffyou")
	p.Seed = 4
	want += say("Why?")
	turns = nil
	want += say("Why?")
	out, notes, status := program(t, "Hello\nWho\\\nare \xffyou\n/seed 4\nWhy?\r\n/top-p 7\n/sed 4\n/reset\n"+
		"Why?\n/seed\n/exit\nnever answered\n",
		"chat", "--in", path, "--mode", "conversation", "--tokens", "6", "--temperature", "1", "--seed", "3")
	if out != want || status != 0 {
		t.Errorf("status %d: wrote %q, want %q", status, out, want)
	}
	if want := "seed 4\ntop-p is 7, want 0 to 1\nthere is no command /sed: /help lists them (a message that begins with " +
		"/ has a space before it)\nseed 4\n"; notes != want {
		t.Errorf("noted %q, want %q", notes, want)
	}
}

// A model that continues has each message on a line of its own. An empty one lets it write on.
func TestContinuation(t *testing.T) {
	path := packed(t, 96)
	w, p := newWriting(t, path), Params{Tokens: 6, Temperature: 1, Seed: 3}
	first := w.write(w.Encode("A pot"), p)
	text := append(w.Encode("A pot"), first.Tokens...)
	second := w.write(text, p)
	text = append(append(text, second.Tokens...), w.Encode("\nboils")...)
	third := w.write(text, p)
	want := first.Text + "\n" + second.Text + "\n" + third.Text + "\n"
	out, notes, status := program(t, "A pot\n\nboils",
		"chat", "--in", path, "--tokens", "6", "--temperature", "1", "--seed", "3")
	if out != want || notes != "" || status != 0 {
		t.Errorf("status %d: wrote %q, want %q; noted %q", status, out, want, notes)
	}
}

// Where the context has no room for all that was said, the oldest turns are left out, and the user is told. A message
// that has no room by itself is refused, and the chat goes on.
func TestFullContext(t *testing.T) {
	path := packed(t, 64)
	long := strings.Repeat("x", 70) + "\n"
	for mode, want := range map[string][]string{
		"conversation": {"the message makes a prompt of 89 tokens, and the model's context is 64: say it in fewer words",
			"(the oldest turns are forgotten, 2 of them: the context has 64 tokens)"},
		"continuation": {"the text has 70 tokens, and the model's context is 64: shorten it",
			"(the model reads the last 32 of "},
	} {
		out, notes, status := program(t, long+strings.Repeat("It is me again\n", 4), "chat", "--in", path, "--mode", mode,
			"--tokens", "20", "--temperature", "0")
		if status != 0 || strings.Count(out, "\n") < 4 {
			t.Errorf("%s: status %d, wrote %q", mode, status, out)
		}
		for _, note := range want {
			if !strings.Contains(notes, note) {
				t.Errorf("%s: noted %s, want %q", mode, notes, note)
			}
		}
	}
	said := &conversed{model: newWriting(t, path).Model}
	for range 5 {
		prompt, _, _, err := said.ask("It is", 0)
		if err != nil || len(prompt) > 64-16 || !strings.HasPrefix(said.model.Text(prompt), "<|endoftext|>user: It is\n") {
			t.Errorf("prompt of %d tokens, %v", len(prompt), err)
		}
		said.answered(generation.Result{Text: " Yes."})
	}
	said.system = "S"
	if prompt, _, note, err := said.ask("It is", 0); err != nil || note == "" ||
		!strings.HasPrefix(said.model.Text(prompt), "<|endoftext|>system: S\n\nuser: It is\n") {
		t.Errorf("prompt %q, %q, %v", said.model.Text(prompt), note, err)
	}
}

// On a terminal, control characters of the model are not obeyed.
func TestScreen(t *testing.T) {
	const text = "a\n\tb\x1b[2J\r\u0085é"
	for width, want := range map[int]string{80: "a\n\tb\uFFFD[2J\uFFFD\uFFFDé\n", 0: text + "\n"} {
		var shown strings.Builder
		s := screen{out: &shown, width: width}
		if err := s.write(text + "\n"); err != nil || shown.String() != want {
			t.Errorf("width %d: %q, %v", width, shown.String(), err)
		}
	}
}

// On a terminal, lines are broken between words, however the text comes; a word that is whole is shown.
func TestScreenWraps(t *testing.T) {
	for text, want := range map[string]string{
		"The king said no.\n":     "The king \nsaid no.\n",
		"0123456789 ab":           "0123456789",
		"0123456789 ab\n":         "0123456789\nab\n",
		"a 0123456789abcdef g\n":  "a \n0123456789\nabcdef g\n",
		"01234567 ab  c\n\n\nd\n": "01234567 \nab  c\n\n\nd\n",
		"日本語日本語 x":                "日本語日本\n語 ",
		"e\u0301e\u0301345678 \n": "e\u0301e\u0301345678 \n",
	} {
		for size := range 4 {
			var shown strings.Builder
			s := screen{out: &shown, width: 10}
			for part := range slices.Chunk([]rune(text), size+1) {
				if err := s.write(string(part)); err != nil {
					t.Fatal(err)
				}
			}
			if shown.String() != want {
				t.Errorf("%q, %d characters at a time: %q, want %q", text, size+1, shown.String(), want)
			}
		}
	}
}

// A message is a line. A backslash at its end joins the next one, and a line that is too long is left out.
func TestLines(t *testing.T) {
	in := newLines(strings.NewReader("one\r\n\n"+`two\`+"\n"+` lines\`+"\n\xff\n"+
		strings.Repeat("y", maxLine+1)+"\nlast\n"+`open\`), false)
	var got []string
	asked := 0
	for {
		message, err := in.message(func() { asked++ })
		if err == io.EOF {
			break
		}
		if errors.Is(err, errLongLine) {
			message = "(long)"
		} else if err != nil {
			t.Fatal(err)
		}
		got = append(got, message)
	}
	want := []string{"one", "", "two\n lines\n\xff", "(long)", "last", "open\n"}
	if !slices.Equal(got, want) || asked != 3 {
		t.Errorf("read %q, want %q; asked %d times for more", got, want, asked)
	}
}
