package command

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Arrange puts a command's arguments in the order that package cli wants, flags first, and lets the flag many take
// several values, as a shell's pattern gives them: "--source a b FILE --seed 1" becomes "--source=a --source=b --seed=1
// FILE". The command's own argument is what isOwn says or, where it says so of none, the last; isOwn is nil where the
// command has none.
func Arrange(args []string, flags []cli.Flag, many string, isOwn func(string) bool) []string {
	takesValue := map[string]bool{}
	for _, f := range flags {
		_, isBool := f.(*cli.BoolFlag)
		for _, name := range f.Names() {
			takesValue[name] = !isBool
		}
	}
	var front, own []string
	taking := false // values of many
	for i := 0; i < len(args); i++ {
		a := args[i]
		name, _, valued := strings.Cut(strings.TrimLeft(a, "-"), "=")
		switch {
		case a == "--":
			own = append(own, args[i:]...)
			return append(front, own...)
		case strings.HasPrefix(a, "-") && a != "-":
			taking = name == many
			if takesValue[name] && !valued && i+1 < len(args) {
				i++
				a += "=" + args[i]
			}
			front = append(front, a)
		case taking && (isOwn == nil || !isOwn(a)):
			front = append(front, "--"+many+"="+a)
		default:
			own = append(own, a)
		}
	}
	if last := len(front) - 1; isOwn != nil && len(own) == 0 && taking && last > 0 &&
		strings.HasPrefix(front[last-1], "--"+many+"=") {
		own = []string{strings.TrimPrefix(front[last], "--"+many+"=")}
		front = slices.Delete(front, last, last+1)
	}
	return append(front, own...)
}
