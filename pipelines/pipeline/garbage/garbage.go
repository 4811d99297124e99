// Package garbage finds the artifacts of a data directory that nothing needs any more. It removes none of them.
package garbage

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"bitnet1/shared/run/artifact"
)

// anyDigest matches the names of artifacts and jobs. It is searched for in the bytes of events and records, so that
// artifacts named by events of an unknown kind are kept, too.
var anyDigest = regexp.MustCompile(`[0-9a-f]{64}`)

// Unnamed lists the artifacts that no run names and no unfinished job uses. If keep is above 0, only the last keep
// checkpoints and the best one of each finished run count as named.
func Unnamed(dir string, keep int) ([]artifact.Object, error) {
	all, err := artifact.Objects(dir)
	if err != nil {
		return nil, err
	}
	n := naming{dir: dir, named: map[string]bool{}}
	if err := n.run(filepath.Join(dir, "runs")); err != nil {
		return nil, err
	}
	if err := n.unfinishedJobs(); err != nil {
		return nil, err
	}
	if keep > 0 {
		if err := n.thin(keep); err != nil {
			return nil, err
		}
	}
	var unnamed []artifact.Object
	for _, o := range all {
		if !n.named[o.Digest] {
			unnamed = append(unnamed, o)
		}
	}
	return unnamed, nil
}

// naming collects the digests that are named somewhere.
type naming struct {
	dir   string
	named map[string]bool
}

// run names all artifacts that events and links under a folder of runs name, and the artifacts that those name in turn.
func (n *naming) run(folder string) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			n.take([]byte(target))
			return err
		case strings.HasSuffix(path, ".msgpack") && d.Type().IsRegular():
			return n.takeFile(path)
		}
		return nil
	})
}

// unfinishedJobs names all artifacts in the records of jobs that have not ended.
func (n *naming) unfinishedJobs() error {
	jobs, err := filepath.Glob(filepath.Join(n.dir, "jobs", "*", "*"))
	if err != nil {
		return err
	}
	for _, job := range jobs {
		if _, err := os.Stat(filepath.Join(job, "record.msgpack")); err == nil {
			continue // what it made is the runs' to name; without it the job is done again
		}
		err := filepath.WalkDir(job, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, ".msgpack") {
				return err
			}
			return n.takeFile(path)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *naming) takeFile(path string) error {
	b, err := os.ReadFile(path)
	if err == nil {
		n.take(b)
	}
	return err
}

func (n *naming) take(b []byte) {
	for _, found := range anyDigest.FindAll(b, -1) {
		name := string(found)
		if n.named[name] {
			continue
		}
		n.named[name] = true
		n.inside(name)
	}
}

// mostText bounds the artifacts in which others are looked for, in bytes: manifests and definitions are small.
const mostText = 64 << 20

// inside names the artifacts that an artifact of text (a manifest, say) or the record of a finished job names: the
// checkpoint that a finetuning began from, for example.
func (n *naming) inside(name string) {
	if b, err := os.ReadFile(filepath.Join(n.dir, "jobs", name[:2], name, "record.msgpack")); err == nil {
		n.take(b)
	}
	f, err := os.Open(artifact.ObjectPath(n.dir, name))
	if err != nil {
		return
	}
	defer f.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(f, first); err != nil || first[0] != '{' {
		return
	}
	if b, err := io.ReadAll(io.LimitReader(f, mostText)); err == nil {
		n.take(b)
	}
}
