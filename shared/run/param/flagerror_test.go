package param

import (
	"errors"
	"io"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestFlagError(t *testing.T) {
	taken := []cli.Flag{&cli.StringFlag{Name: "source"}, &cli.StringFlag{Name: "seed"}}
	for text, want := range map[string]string{
		"flag provided but not defined: -sorce":         "there is no flag --sorce: did you mean --source?",
		"flag provided but not defined: --sed":          "there is no flag --sed: did you mean --seed?",
		"flag provided but not defined: -nothing-alike": "there is no flag --nothing-alike: --help lists the flags",
		"flag needs an argument: -seed":                 "flag needs an argument: -seed",
	} {
		if got := FlagError(errors.New(text), taken).Error(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Package cli says of a wrong value "parse error" alone.
func TestAWrongValueOfAFlagNamesWhatItTakes(t *testing.T) {
	flags := []cli.Flag{&cli.Uint64Flag{Name: "seed"}, &cli.IntFlag{Name: "rounds"}, &cli.Int64Flag{Name: "memory"},
		&cli.Float64Flag{Name: "speed"}, &cli.DurationFlag{Name: "stall", Aliases: []string{"s"}},
		&cli.BoolFlag{Name: "json"}}
	for arg, want := range map[string]string{
		"--seed=-1":                      `--seed "-1": use an integer from 0 to 2^64-1`,
		"--rounds=many":                  `--rounds "many": use an integer`,
		"--memory=99999999999999999999":  `--memory "99999999999999999999": use an integer`,
		"--speed=fast":                   `--speed "fast": use a number`,
		"-s=5":                           `--s "5": use a duration, such as 90s or 2h30m`,
		"--json=perhaps":                 `--json "perhaps": use true or false`,
		`--rounds=for flag -seed: "x" y`: `--rounds "for flag -seed: \"x\" y": use an integer`,
		`--rounds=x" for flag -seed: y`:  `--rounds "x\" for flag -seed: y": use an integer`,
	} {
		app := &cli.App{Name: "program", Flags: flags, Writer: io.Discard, ErrWriter: io.Discard,
			OnUsageError: func(c *cli.Context, err error, _ bool) error { return FlagError(err, c.App.Flags) }}
		if err := app.Run([]string{"program", arg}); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", arg, err, want)
		}
	}
}
