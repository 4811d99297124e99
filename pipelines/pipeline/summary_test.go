package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/journal"
)

// The commands that a run ends with find its data directory, wherever that is.
func TestHintsFindTheDataDirectory(t *testing.T) {
	t.Setenv("BITNET1_DATA", "") // back to what it was when the test ends
	if err := os.Unsetenv("BITNET1_DATA"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"x"}, []string{"task runs -- r1\n", "task probe -- --run r1 --force\n"}},
		{[]string{"x", "--data", "else where"}, []string{"task runs -- --data 'else where' r1\n", "task probe -- --data 'else where' --run r1 --force\n"}},
	} {
		var out bytes.Buffer
		app := &cli.App{Writer: &out, Flags: []cli.Flag{dataFlag()}, Action: func(c *cli.Context) error {
			writeHints(c, journal.Open(c.String("data")), "r1")
			return nil
		}}
		if err := app.Run(c.args); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q has no %q:\n%s", c.args, want, &out)
			}
		}
	}
}
