// Package glob matches paths with patterns. In a name, *, ? and [a-z] mean the same as in package path. The name **
// stands for any number of folders, also for none. docs/decisions/own-patterns-of-paths.md says why no module is used.
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
	for _, n := range names { // so that a mistake is found even in names that are never compared
		if _, err := path.Match(n, ""); err != nil {
			return false, err
		}
	}
	return match(names, strings.Split(name, "/")), nil
}

// match takes the fewest folders for every **. Where that leads nowhere, the last ** takes one more: an earlier one
// could take more only of what the last one takes as well.
func match(pattern, names []string) bool {
	var after, left []string // what follows the last **, and the names that it has not taken
	for len(pattern) > 0 || len(names) > 0 {
		if len(pattern) > 0 && pattern[0] == folders {
			pattern = pattern[1:]
			after, left = pattern, names
			continue
		}
		if len(pattern) > 0 && len(names) > 0 {
			if ok, _ := path.Match(pattern[0], names[0]); ok {
				pattern, names = pattern[1:], names[1:]
				continue
			}
		}
		if len(left) == 0 {
			return false
		}
		left = left[1:]
		pattern, names = after, left
	}
	return true
}

// split splits a pattern into names. A ** at the end stands for all files in any folder below.
func split(pattern string) []string {
	names := slices.CompactFunc(strings.Split(pattern, "/"),
		func(a, b string) bool { return a == folders && b == folders })
	if names[len(names)-1] == folders {
		names = append(names, "*")
	}
	return names
}

// Files returns the paths on this machine that match a pattern, sorted. A path that exists is taken literally, before
// it counts as a pattern. The same holds for every name of the pattern: data[1]/*.jsonl stands for the files in the
// folder data[1], if that exists. ** does not follow links, and does not stand for folders that are left out; nil
// leaves out none. A folder that cannot be read is an error. A pattern that matches nothing is no error.
func Files(pattern string, leaveOut func(folder string) bool) ([]string, error) {
	if ok, err := exists(pattern); ok || err != nil {
		return []string{pattern}, err
	}
	if _, err := Match(pattern, ""); err != nil {
		return nil, err
	}
	w := &walk{leaveOut: leaveOut}
	if err := w.expand("", split(pattern)); err != nil {
		return nil, err
	}
	slices.Sort(w.found)
	return slices.Compact(w.found), nil
}

// exists tells whether a path exists. A link that leads nowhere exists.
func exists(name string) (bool, error) {
	_, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) {
		return false, nil
	}
	return err == nil, err
}

type walk struct {
	leaveOut func(folder string) bool
	found    []string
}

// expand finds the matches of the rest of a pattern below a path, which ends with a slash or is empty.
func (w *walk) expand(at string, rest []string) error {
	name := rest[0]
	if name == folders {
		return w.descend(at, rest)
	}
	there, err := exists(at + name)
	switch {
	case err != nil:
		return err
	case there, name == "": // an empty name stands before a slash at the beginning, and between two slashes
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

// step continues at a path that matches the names before rest.
func (w *walk) step(at string, rest []string) error {
	if len(rest) > 0 {
		return w.expand(at+"/", rest)
	}
	if at != "" && !strings.HasSuffix(at, "/") {
		w.found = append(w.found, at)
	}
	return nil
}

// descend expands rest, which begins with **, here and in all folders below.
func (w *walk) descend(at string, rest []string) error {
	err := w.expand(at, rest[1:])
	entries, failed := read(at)
	err = errors.Join(err, failed)
	for _, e := range entries {
		if e.IsDir() && err == nil && (w.leaveOut == nil || !w.leaveOut(at+e.Name())) {
			err = w.descend(at+e.Name()+"/", rest)
		}
	}
	return err
}

// read lists a folder. A path that is no folder has no entries.
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
