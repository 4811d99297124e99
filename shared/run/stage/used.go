package stage

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/journal"
	"bitnet1/shared/run/record"
)

// A folder of one-shot runs keeps the records of its jobs, so that what one command made there is not taken for
// another's: the same command again is answered or goes on, and another one never replaces or mixes with what is there.

// checkUsed refuses a job that has nothing in the folder yet, where another one of the stage has made something of the
// same inputs: it would have the same names.
func (p *performer[P, E]) checkUsed(r *record.Record) error {
	others, err := r.OfSameInputs(p.records)
	if err != nil {
		return err
	}
	for _, other := range others {
		there := slices.DeleteFunc(other.Own(), func(ref artifact.Ref) bool { return !p.folder.Holds(ref) })
		if len(there) == 0 {
			continue
		}
		return Permanentf("%s has what %s made of the same input%s: choose another --out, or --force to "+
			"replace files of equal names",
			filepath.Join(p.folder.Dir(), there[0].Name), r.Stage, differently(other.Params, r.Params))
	}
	return nil
}

// differently says how the parameters of another job differ, given as canonical JSON.
func differently(other, params string) string {
	var was, is map[string]json.RawMessage
	if json.Unmarshal([]byte(other), &was) != nil || json.Unmarshal([]byte(params), &is) != nil {
		return ""
	}
	var parts []string
	for key, value := range was {
		if string(value) != string(is[key]) {
			parts = append(parts, key+" "+string(value))
		}
	}
	if len(parts) == 0 {
		return " in another version"
	}
	slices.Sort(parts)
	return " with " + strings.Join(parts, ", ")
}

// showLive links name, in the folder, to a file that the job is at work on. What another job made or has begun there
// stays, and so does the artifact of that name that an earlier attempt at the job has announced: it is not announced
// again, and the file goes when the job is committed.
func (p *performer[P, E]) showLive(r *record.Record, path, link string, replace bool) error {
	name := filepath.Base(link)
	if !replace && slices.ContainsFunc(r.Own(), func(ref artifact.Ref) bool { return ref.Name == name }) {
		return nil
	}
	if p.folder != nil && !replace {
		info, err := os.Lstat(link)
		target, _ := os.Readlink(link)
		_, gone := os.Stat(link)
		switch {
		case errors.Is(err, fs.ErrNotExist), p.folder.Replaces(name):
		case err != nil:
			return err
		case info.Mode()&fs.ModeSymlink == 0:
			return Permanentf("%s is there from another %s: choose another --out, or --force to replace it", link, r.Stage)
		case gone == nil && !strings.HasPrefix(filepath.Join(filepath.Dir(link), target),
			filepath.Clean(r.Dir())+string(filepath.Separator)):
			return Permanentf("%s belongs to another %s, which is unfinished (its own command goes on with it): choose "+
				"another --out, or --force to replace it", link, r.Stage)
		}
	}
	if p.folder != nil && !replace {
		p.folder.Replace(name)
	}
	return journal.Symlink(p.fs, path, link)
}
