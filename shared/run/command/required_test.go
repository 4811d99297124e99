package command

import (
	"io"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// A missing flag is the user's mistake, and is named without all the help before it.
func TestRequired(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"", Usage, "plot: give --x KEY (--help explains it)\n"},
		{"--x=", Usage, "plot: give --x KEY (--help explains it)\n"},
		{"--x steps", Usage, "plot: give --out FILE (--help explains it)\n"},
		{"--x steps --out f", Done, ""},
		{"--help", Done, ""},
	} {
		app := &cli.App{Name: "plot", Before: Required("x KEY", "out FILE"), Writer: io.Discard,
			Flags:  []cli.Flag{&cli.StringFlag{Name: "x"}, &cli.StringFlag{Name: "out"}},
			Action: func(*cli.Context) error { return nil }}
		var said strings.Builder
		app.ErrWriter = &said
		status := ExitStatus("plot", app.Run(append([]string{"plot"}, strings.Fields(c.args)...)), &said)
		if status != c.status || said.String() != c.want {
			t.Errorf("%q: status %d, %q, want %d, %q", c.args, status, said.String(), c.status, c.want)
		}
	}
}
