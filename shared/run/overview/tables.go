package overview

import (
	"os"
	"path/filepath"
	"sync"

	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/results"
)

// Tables reads the tables of a run. A run of an older version has not kept its stages' declarations: then the
// programs beside this one are asked.
func Tables(j journal.Journal, run string) ([]*results.Table, error) {
	declared, err := results.Declared(j, run, askProgram())
	if err != nil {
		return nil, err
	}
	return results.Read(j, run, declared)
}

// askProgram asks a program beside this one.
var askProgram = sync.OnceValue(func() func(string) (results.Declaration, bool) {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	return results.Ask(filepath.Dir(self))
})
