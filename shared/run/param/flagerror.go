package param

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

const undefined = "flag provided but not defined: -"

// UndefinedFlag is the name of the flag that package cli's error says is none of the command's.
func UndefinedFlag(err error) (name string, ok bool) {
	name, ok = strings.CutPrefix(err.Error(), undefined)
	return strings.TrimLeft(name, "-"), ok
}

// invalid is package cli's error about the value of a flag.
var invalid = regexp.MustCompile(`^invalid (?:boolean )?value (".*") for (?:flag )?-([^ :]+): `)

// FlagError makes of package cli's error about a flag one that says what to give: the nearest of the flags that the
// command takes, or the kind of value that the flag has. Other errors stay as they are.
func FlagError(err error, taken []cli.Flag) error {
	name, ok := UndefinedFlag(err)
	if !ok {
		return wrongValue(err, taken)
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

// wrongValue says which values a flag has.
func wrongValue(err error, taken []cli.Flag) error {
	found := invalid.FindStringSubmatch(err.Error())
	if found == nil {
		return err
	}
	i := slices.IndexFunc(taken, func(f cli.Flag) bool { return slices.Contains(f.Names(), found[2]) })
	if i < 0 {
		return err
	}
	var want string
	switch taken[i].(type) {
	case *cli.IntFlag, *cli.Int64Flag:
		want = "an integer"
	case *cli.Uint64Flag:
		want = "an integer from 0 to 2^64-1"
	case *cli.Float64Flag:
		want = "a number"
	case *cli.DurationFlag:
		want = "a duration, such as 90s or 2h30m"
	case *cli.BoolFlag:
		want = "true or false"
	default:
		return err
	}
	return fmt.Errorf("--%s %s: use %s", found[2], found[1], want)
}
