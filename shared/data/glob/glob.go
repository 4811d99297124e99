// Package glob matches paths with patterns: *, ? and [a-z] stand for parts of one name, as package path has them, and
// the name ** stands for any number of folders, none included.
package glob

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// folders is the name that stands for any number of them.
const folders = "**"

// Match tells whether a path with slashes matches the pattern. The error is path.ErrBadPattern.
func Match(pattern, name string) (bool, error) {
	names := split(pattern)
	for _, n := range names { // a mistake is one wherever the matching would end
		if _, err := path.Match(n, ""); err != nil {
			return false, err
		}
	}
	return match(names, strings.Split(name, "/")), nil
}

func match(pattern, names []string) bool {
	for ; len(pattern) > 0; pattern, names = pattern[1:], names[1:] {
		if pattern[0] == folders {
			for i := range names {
				if match(pattern[1:], names[i:]) {
					return true
				}
			}
			return false
		}
		if len(names) == 0 {
			return false
		}
		if ok, _ := path.Match(pattern[0], names[0]); !ok {
			return false
		}
	}
	return len(names) == 0
}

// split takes a pattern apart. ** at its end stands for all files, wherever they lie.
func split(pattern string) []string {
	names := slices.CompactFunc(strings.Split(pattern, "/"),
		func(a, b string) bool { return a == folders && b == folders })
	if names[len(names)-1] == folders {
		names = append(names, "*")
	}
	return names
}

// Files returns the paths that a pattern stands for on this machine, sorted. A path that is there is taken as it is
// written, before anything in it is a pattern; so is every name on the way: data[1]/*.jsonl are the files in the folder
// data[1], if there is one. ** does not follow links. A folder that cannot be read is an error; that there are no files
// is none.
func Files(pattern string) ([]string, error) {
	if ok, err := exists(pattern); ok || err != nil {
		return []string{pattern}, err
	}
	if _, err := Match(pattern, ""); err != nil {
		return nil, err
	}
	w := &walk{}
	if err := w.expand("", split(pattern)); err != nil {
		return nil, err
	}
	slices.Sort(w.found)
	return slices.Compact(w.found), nil
}

// exists tells whether there is something at a path, if only a link that leads nowhere.
func exists(name string) (bool, error) {
	_, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) {
		return false, nil
	}
	return err == nil, err
}

type walk struct{ found []string }

// expand finds what the rest of a pattern stands for below a path, which ends with a slash or is empty.
func (w *walk) expand(at string, rest []string) error {
	name := rest[0]
	if name == folders {
		return w.descend(at, rest)
	}
	there, err := exists(at + name)
	switch {
	case err != nil:
		return err
	case there, name == "": // also the slash at the beginning, and one after another
		return w.step(at+name, rest[1:])
	case !strings.ContainsAny(name, `*?[\`):
		return nil
	}
	entries, err := read(at)
	for _, e := range entries {
		if ok, _ := path.Match(name, e.Name()); ok && err == nil {
			err = w.step(at+e.Name(), rest[1:])
		}
	}
	return err
}

// step goes on at a path that matches the pattern up to its rest.
func (w *walk) step(at string, rest []string) error {
	if len(rest) > 0 {
		return w.expand(at+"/", rest)
	}
	if at != "" && !strings.HasSuffix(at, "/") {
		w.found = append(w.found, at)
	}
	return nil
}

// descend expands ** and what follows, here and in all folders below.
func (w *walk) descend(at string, rest []string) error {
	err := w.expand(at, rest[1:])
	entries, failed := read(at)
	err = errors.Join(err, failed)
	for _, e := range entries {
		if e.IsDir() && err == nil {
			err = w.descend(at+e.Name()+"/", rest)
		}
	}
	return err
}

// read lists a folder; what is none, or is not there, has no entries.
func read(at string) ([]fs.DirEntry, error) {
	if at == "" {
		at = "."
	}
	entries, err := os.ReadDir(at)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return entries, err
}
