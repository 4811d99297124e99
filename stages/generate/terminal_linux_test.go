package main

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"bitnet1/shared/measure/measuretest"
	"bitnet1/shared/processtest"
	"bitnet1/shared/run/terminal/terminaltest"
)

// typist sits at a terminal of 60 columns, and reads what is on it.
type typist struct {
	t    *testing.T
	keys *os.File
	seen processtest.Output
}

// sitDown starts the program chat on a terminal. The function that it returns waits for its end.
func sitDown(t *testing.T, flags ...string) (*typist, func() error) {
	t.Helper()
	outer, inner := terminaltest.Open(t, 24, 60)
	cmd, _ := measuretest.Program(t)
	cmd.Args = append(append(cmd.Args[:1], "chat"), flags...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inner, inner, inner
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inner.Close()
	t.Cleanup(func() { cmd.Process.Kill() })
	who := &typist{t: t, keys: outer}
	go io.Copy(&who.seen, outer) // ends when nobody has the other end any more
	return who, cmd.Wait
}

func (w *typist) screen() string { return w.seen.String() }

func (w *typist) types(keys string) {
	w.t.Helper()
	if _, err := io.WriteString(w.keys, keys); err != nil {
		w.t.Fatal(err)
	}
}

// sees waits until text is on the screen so many times.
func (w *typist) sees(text string, times int) {
	w.t.Helper()
	for began := time.Now(); strings.Count(w.screen(), text) < times; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			w.t.Fatalf("%q is not %d times on the screen:\n%q", text, times, w.screen())
		}
	}
}

// On a terminal there is a prompt. Ctrl-C stops an answer, and no more; Ctrl-D ends the chat. Nothing that the program
// says by itself is wider than the terminal, and the model writes no control characters.
func TestChatOnATerminal(t *testing.T) {
	path := packed(t, 1<<16) // so that an answer takes long
	who, wait := sitDown(t, "--in", path, "--tokens", "0", "--temperature", "0", "--mode", "continuation")
	who.sees("\n> ", 1)
	who.types("/help\n")
	who.sees("\n> ", 2)
	said := who.screen()
	for line := range strings.Lines(said) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); n > 60 {
			t.Errorf("a line of %d columns: %q", n, line)
		}
	}
	if !strings.Contains(said, "context of 65536 tokens") || !strings.Contains(said, "/reset") {
		t.Errorf("the program says %q", said)
	}
	who.types("\x03")
	who.sees("(Ctrl-D or /exit ends the chat)", 1)
	who.types("It was\n")
	for began := time.Now(); len(who.screen()) < len(said)+500; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("no answer: %q", who.screen())
		}
	}
	who.types("\x03")
	who.sees("\n(stopped)\r\n> ", 1)
	if strings.Contains(who.screen(), "context is full") {
		t.Error("Ctrl-C did not stop the answer")
	}
	who.types("/tokens 3\n\n")
	who.sees("\n> ", 6)
	who.types(strings.Repeat("y", 4095) + "\n") // the kernel passes on as many of a longer line
	who.sees("a terminal hands over the first 4095 bytes", 1)
	who.sees("\n> ", 7)
	who.types(strings.Repeat("y", 4000) + "\n")
	who.sees("\n> ", 8)
	who.types("\x04")
	if err := wait(); err != nil {
		t.Errorf("the chat ends with %v: %q", err, who.screen())
	}
	answer := strings.NewReplacer("^C", "", "\r", "").Replace(who.screen()[len(said):])
	control := func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }
	if i := strings.IndexFunc(answer, control); i >= 0 {
		t.Errorf("a control character: %q", answer[max(0, i-20):i+1])
	}
}
