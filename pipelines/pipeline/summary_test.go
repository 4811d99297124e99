package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
)

// The commands that are printed at the end of a run name its data directory.
func TestHintsFindTheDataDirectory(t *testing.T) {
	t.Setenv("BITNET1_DATA", "") // back to what it was when the test ends
	if err := os.Unsetenv("BITNET1_DATA"); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	count := filepath.Join(filepath.Dir(self), "count") // a stage's program, in the folder of this one
	if err := os.WriteFile(count, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(count)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"x"}, []string{"/pipeline runs r1\n", "/count run --run r1 --force\n"}},
		{[]string{"x", "--data", "else where"},
			[]string{"/pipeline runs --data 'else where' r1\n", "/count run --data 'else where' --run r1 --force\n"}},
	} {
		var out bytes.Buffer
		app := &cli.App{Writer: &out, Flags: []cli.Flag{dataFlag()}, Action: func(c *cli.Context) error {
			writeHints(c, journal.Open(c.String("data")), "r1", []*results.Table{
				{Stages: []string{"count"}}, {Rows: []*results.Row{{}}, Stages: []string{"foreign", "count"}},
			})
			return nil
		}}
		if err := app.Run(c.args); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if strings.Count(out.String(), want) != 1 {
				t.Errorf("%q has %q not once:\n%s", c.args, want, &out)
			}
		}
	}
}
