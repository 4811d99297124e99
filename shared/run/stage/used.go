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
	"bitnet1/shared/run/event"
	"bitnet1/shared/run/journal"
)

// A folder of one-shot runs keeps the records of its jobs, so that what one command made there is not taken for another's:
// the same command again is answered or goes on, and another one never replaces or mixes with what is there.

// made lists the artifacts of an output that the job itself has made.
func (r *record) made(out output) []artifact.Ref {
	return slices.DeleteFunc(mentioned(out.Body), func(ref artifact.Ref) bool { return slices.Contains(r.Inputs, ref.Digest) })
}

// own are all artifacts that the job has made.
func (r *record) own() (refs []artifact.Ref) {
	for _, out := range r.Outputs {
		refs = append(refs, r.made(out)...)
	}
	return refs
}

// checkUsed refuses a job that has nothing in the folder yet, where another one of the stage has made something of the same
// inputs: it would have the same names.
func (p *performer[P, E]) checkUsed(r *record) error {
	found, err := filepath.Glob(filepath.Join(p.records, "*", "*", recordName))
	if err != nil {
		return err
	}
	for _, path := range found {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it is being made anew
		}
		var other record
		if event.Unmarshal(b, &other) != nil || other.Key == r.Key || other.Stage != r.Stage || !slices.Equal(other.Inputs, r.Inputs) {
			continue
		}
		there := slices.DeleteFunc(other.own(), func(ref artifact.Ref) bool { return !p.folder.Holds(ref) })
		if len(there) == 0 {
			continue
		}
		return Permanentf("%s has what %s made of the same input%s: choose another --out, or --force to replace files of equal names",
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

// showLive links name, in the folder, to a file that the job is at work on. What another job made or has begun there stays.
func (p *performer[P, E]) showLive(r *record, path, link string, replace bool) error {
	name := filepath.Base(link)
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
		case gone == nil && !strings.HasPrefix(filepath.Join(filepath.Dir(link), target), filepath.Clean(r.dir)+string(filepath.Separator)):
			return Permanentf("%s belongs to another %s, which is unfinished (its own command goes on with it): choose another --out, or --force to replace it", link, r.Stage)
		}
	}
	if p.folder != nil && !replace {
		p.folder.Replace(name)
	}
	return journal.Symlink(path, link)
}
