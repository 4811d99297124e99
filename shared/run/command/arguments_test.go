package command

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestArrangeLetsAFlagTakeSeveralValuesAndFlagsStandAnywhere(t *testing.T) {
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "source"}, &cli.StringSliceFlag{Name: "set"}, &cli.BoolFlag{Name: "json"},
		&cli.StringFlag{Name: "run", Aliases: []string{"r"}},
	}
	isOwn := func(arg string) bool { return strings.HasSuffix(arg, ".yml") }
	for given, want := range map[string]string{
		"--source a b --json p.yml":      "--source=a --source=b --json p.yml",
		"--source a b p.yml":             "--source=a --source=b p.yml",
		"--source a p.yml b":             "--source=a --source=b p.yml",
		"p.yml --source a b":             "--source=a --source=b p.yml",
		"--source=a b --run x p.yml":     "--source=a --source=b --run=x p.yml",
		"p.yml --json -r x":              "--json -r=x p.yml",
		"--source a p.pipeline":          "--source=a p.pipeline", // the last is the command's own
		"--source a b p.pipeline":        "--source=a --source=b p.pipeline",
		"--source a --json p.pipeline":   "--source=a --json p.pipeline",
		"--source a":                     "--source=a",
		"--set x.y=1 --set x.z=-2 p.yml": "--set=x.y=1 --set=x.z=-2 p.yml",
		"--run -x p.yml":                 "--run=-x p.yml",
		"--source a b --steps 10 p.yml":  "--source=a --source=b --steps 10 p.yml",
		"--source a -- --b p.yml":        "--source=a -- --b p.yml",
		"--json p.yml q.yml":             "--json p.yml q.yml",
		"":                               "",
	} {
		if got := strings.Join(Arrange(strings.Fields(given), flags, "source", isOwn), " "); got != want {
			t.Errorf("%s became %s, want %s", given, got, want)
		}
	}
	for given, want := range map[string]string{ // a command without an argument of its own
		"--source a b":          "--source=a --source=b",
		"--source a --source b": "--source=a --source=b",
	} {
		if got := strings.Join(Arrange(strings.Fields(given), flags, "source", nil), " "); got != want {
			t.Errorf("%s became %s, want %s", given, got, want)
		}
	}
}
