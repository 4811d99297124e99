package param

import (
	"slices"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestFlagsOfListsMayBeGivenSeveralTimes(t *testing.T) {
	p := sample{Names: []string{"default"}, Layers: []int{9}}
	app := &cli.App{
		Flags: Flags(p), DisableSliceFlagSeparator: true,
		Action: func(c *cli.Context) error { return Apply(c, &p) },
	}
	err := app.Run([]string{"x", "--names", `author = "Roe, Jane"`, "--names", "[a, b]", "--kshift-layers", "none",
		"--steps", "1e3"})
	if err != nil || !slices.Equal(p.Names, []string{`author = "Roe, Jane"`, "a", "b"}) || len(p.Layers) > 0 ||
		p.Steps != 1000 {
		t.Errorf("%+v, %v", p, err)
	}
}
