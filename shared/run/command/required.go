package command

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// Required is the Before of a command that cannot do without some flags, each as "name VALUE". Package cli's own check
// prints all help before it says which flag is missing.
func Required(flags ...string) cli.BeforeFunc {
	return func(c *cli.Context) error {
		for _, f := range flags {
			if name, _, _ := strings.Cut(f, " "); c.String(name) == "" {
				return Usagef("give --%s (--help explains it)", f)
			}
		}
		return nil
	}
}
