package param

import (
	"errors"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestUnknownFlag(t *testing.T) {
	taken := []cli.Flag{&cli.StringFlag{Name: "source"}, &cli.StringFlag{Name: "seed"}}
	for text, want := range map[string]string{
		"flag provided but not defined: -sorce":         "there is no flag --sorce: did you mean --source?",
		"flag provided but not defined: --sed":          "there is no flag --sed: did you mean --seed?",
		"flag provided but not defined: -nothing-alike": "there is no flag --nothing-alike: --help lists the flags",
		"flag needs an argument: -seed":                 "flag needs an argument: -seed",
	} {
		if got := UnknownFlag(errors.New(text), taken).Error(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
