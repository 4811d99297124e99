package command

import (
	"errors"
	"fmt"
	"strings"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
)

// advice is what the user of a command can do about an error of the packages below, which know no flags. The first that
// fits is given.
var advice = []struct {
	is  error
	say string
}{
	{artifact.ErrFull, "make room and give the same command again"},
	{artifact.ErrDirectory, "choose another directory with --data or BITNET1_DATA"},
	{artifact.ErrMissing, "rerun the stage that made it with --force"},
	{artifact.ErrDamaged, "rerun the stage that made it with --force"},
	{artifact.ErrOther, "choose another --out, or --force to replace it"},
	{artifact.ErrTaken, "give inputs of one name separately, each with another --out"},
	{artifact.ErrReadOnly, "choose a folder that you may write to with --data, BITNET1_DATA or --out"},
	{bus.ErrPort, "choose another with --nats-port, or 0 for any free one"},
	{bus.ErrStore, "choose another data directory with --data"},
}

// Advised adds to err what its user can do, once.
func Advised(err error) error {
	for _, a := range advice {
		if !errors.Is(err, a.is) {
			continue
		}
		if strings.Contains(err.Error(), a.say) {
			return err
		}
		return fmt.Errorf("%w: %s", err, a.say)
	}
	return err
}
