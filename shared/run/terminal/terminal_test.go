package terminal

import (
	"bytes"
	"slices"
	"testing"
)

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 20, []string{""}},
		{"twelve words are here", 21, []string{"twelve words are here"}},
		{"twelve words are here", 20, []string{"twelve words are", "here"}},
		{"±0.25 μm ± 0.25 μm now", 22, []string{"±0.25 μm ± 0.25 μm now"}}, // characters, not bytes
		{"a/long/path/that/nobody/may/break and more", 20, []string{"a/long/path/that/nobody/may/break", "and more"}},
		{"12 documents  one  two  three", 20, []string{"12 documents  one", "two  three"}},
		{"one two three", 10, []string{"one two three"}},
	} {
		if got := Wrap(c.text, c.width); !slices.Equal(got, c.want) {
			t.Errorf("%q in %d columns: %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"a line of any length at all", 0, "a line of any length at all"},
		{"one\n\ntwo", 40, "one\n\ntwo"},
		{"checkpoint 150 evaluated: 3.612 bits/token\nend\n", 40,
			"checkpoint 150 evaluated: 3.612\n  bits/token\nend\n"},
		{"   a paragraph that has some spaces before it\n", 40, "   a paragraph that has some spaces\n   before it\n"},
		{"  note     a text that continues in its column\n", 40,
			"  note     a text that continues in its\n           column\n"},
		{"   --metrics STAGE=ADDRESS  serve Prometheus metrics of a stage\n", 40,
			"   --metrics STAGE=ADDRESS\n       serve Prometheus metrics of a\n       stage\n"},
	} {
		if got := Fit(c.text, c.width); got != c.want {
			t.Errorf("%q in %d columns:\n%q, want\n%q", c.text, c.width, got, c.want)
		}
	}
}

func TestWhatIsNoTerminalHasNoWidth(t *testing.T) {
	if got := Width(&bytes.Buffer{}); got != 0 {
		t.Errorf("a buffer has %d columns", got)
	}
}
