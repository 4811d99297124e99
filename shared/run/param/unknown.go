package param

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

const undefined = "flag provided but not defined: -"

// UndefinedFlag is the name of the flag that package cli's error says is none of the command's.
func UndefinedFlag(err error) (name string, ok bool) {
	name, ok = strings.CutPrefix(err.Error(), undefined)
	return strings.TrimLeft(name, "-"), ok
}

// UnknownFlag makes of package cli's error about a flag one that names the nearest of those that the command takes.
// Other errors stay as they are.
func UnknownFlag(err error, taken []cli.Flag) error {
	name, ok := UndefinedFlag(err)
	if !ok {
		return err
	}
	var names []string
	for _, f := range taken {
		names = append(names, f.Names()...)
	}
	if near, ok := Nearest(name, names); ok {
		return fmt.Errorf("there is no flag --%s: did you mean --%s?", name, near)
	}
	return fmt.Errorf("there is no flag --%s: --help lists the flags", name)
}
