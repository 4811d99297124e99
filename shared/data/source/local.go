package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"bitnet1/shared/data/documents"
	"bitnet1/shared/data/glob"
	"bitnet1/shared/digest"
)

// fileScheme begins the URL of a file of this machine.
const fileScheme = "file://"

// Path returns the path of a location on this machine. ok is false for any other location.
func Path(location string) (path string, ok bool) {
	if Remote(location) {
		return "", false
	}
	if !strings.HasPrefix(location, fileScheme) {
		return location, true
	}
	u, err := url.Parse(location)
	if err != nil || u.Host != "" && u.Host != "localhost" {
		return strings.TrimPrefix(location, fileScheme), true
	}
	return u.Path, true
}

// location is a path in the form that events can hold. A path that is not valid UTF-8 becomes a URL.
func location(path string) string {
	if utf8.ValidString(path) {
		return path
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

// readable is a name as text. Control characters and bytes that are not valid UTF-8 are written %FF.
func readable(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		if r == utf8.RuneError && n == 1 || unicode.IsControl(r) {
			for _, c := range []byte(name[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteString(name[i : i+n])
		}
		i += n
	}
	return b.String()
}

// Local finds the local files that paths, patterns and file URLs stand for. The paths are absolute and sorted, and each
// file is listed once, even if several links lead to it. A pattern may match folders, which are skipped; anything else
// that is not a regular file is an error. The ** of a pattern does not stand for folders that are left out; nil leaves
// out none.
func Local(named []Named, leaveOut func(folder string) bool) ([]Named, error) {
	var all []Named
	for _, n := range named {
		found, err := matches(n.Location, leaveOut)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", readable(n.Location), err)
		}
		for _, path := range found {
			all = append(all, Named{path, n.Parameters})
		}
	}
	slices.SortStableFunc(all, func(a, b Named) int { return strings.Compare(a.Location, b.Location) })
	return distinct(all)
}

func matches(pattern string, leaveOut func(folder string) bool) ([]string, error) {
	pattern, _ = Path(pattern)
	found, err := glob.Files(pattern, leaveOut)
	if err != nil {
		return nil, err
	}
	var files []string
	folders := 0
	for _, f := range found {
		if info, err := os.Stat(f); err == nil && info.IsDir() && f != pattern {
			folders++
			continue
		}
		if err := regular(f); err != nil {
			return nil, err
		}
		if f, err = absolute(f); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	switch {
	case pattern == "-" && len(files) == 0:
		return nil, errors.New("standard input is not taken, since a source is read more than once: write what comes " +
			"from it to a file, and give that")
	case len(files) == 0 && folders > 0:
		return nil, fmt.Errorf("it matches only folders: name the files in them, e.g. %s",
			filepath.Join(pattern, "*.parquet"))
	case len(files) == 0:
		return nil, errors.New("no such file (paths are relative to the current directory; ** stands for any number " +
			"of folders)")
	}
	return files, nil
}

// absolute is the absolute path without . and .. . Links are kept, because their names may be better. They are followed
// in two cases: where .. follows a link, because .. then leads elsewhere, and in /dev and /proc, which differ between
// processes.
func absolute(path string) (string, error) {
	clean, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	own := strings.HasPrefix(clean, "/dev/") || strings.HasPrefix(clean, "/proc/")
	if same, err := sameFile(path, clean); err != nil || same && !own {
		return clean, err
	}
	if own {
		return filepath.EvalSymlinks(path)
	}
	dir, err := filepath.EvalSymlinks(strings.TrimSuffix(path, filepath.Base(path)))
	if err != nil {
		return "", err
	}
	return filepath.Abs(filepath.Join(dir, filepath.Base(path)))
}

// sameFile tells whether two paths lead to the same file. other may lead nowhere.
func sameFile(path, other string) (bool, error) {
	a, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	b, err := os.Stat(other)
	return err == nil && os.SameFile(a, b), nil
}

// distinct keeps the first path to each file.
func distinct(files []Named) (kept []Named, err error) {
	type sized struct {
		os.FileInfo
		at int // index in kept
	}
	seen := map[int64][]sized{} // by size
	for _, f := range files {
		info, err := os.Stat(f.Location)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(seen[info.Size()], func(other sized) bool { return os.SameFile(info, other.FileInfo) })
		if i < 0 {
			seen[info.Size()] = append(seen[info.Size()], sized{info, len(kept)})
			kept = append(kept, f)
			continue
		}
		first := &kept[seen[info.Size()][i].at]
		if first.Parameters, err = merge(f.Location, first.Parameters, f.Parameters); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// regular is digest.Regular with advice for a folder.
func regular(path string) error {
	err := digest.Regular(path)
	if info, failed := os.Stat(path); failed == nil && info.IsDir() {
		return fmt.Errorf("%w: name its files, e.g. %s", err, filepath.Join(path, inside(path)))
	}
	return err
}

// inside is a pattern that matches the documents in a folder.
func inside(folder string) string {
	for _, extension := range documents.Extensions() {
		for _, pattern := range []string{"*" + extension, "*" + extension + ".*"} {
			for _, deep := range []string{"", "**/"} {
				if found, err := glob.Files(filepath.Join(folder, deep+pattern), nil); err == nil && len(found) > 0 {
					return deep + pattern
				}
			}
		}
	}
	return "*.parquet"
}

// names gives every file a name that does not depend on where the files lie: the path below the deepest folder that
// holds all of them. The paths must be absolute.
func names(files []Named) []string {
	var common []string
	for i, f := range files {
		folder := strings.Split(filepath.Dir(f.Location), "/")
		if i == 0 {
			common = folder
		}
		n := 0
		for n < min(len(common), len(folder)) && common[n] == folder[n] {
			n++
		}
		common = common[:n]
	}
	all := make([]string, len(files))
	for i, f := range files {
		all[i] = readable(strings.Join(strings.Split(f.Location, "/")[len(common):], "/"))
	}
	return all
}

// digestFile reads a file once, until ctx ends.
func digestFile(ctx context.Context, path string) (string, int64, error) {
	if err := regular(path); err != nil {
		return "", 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	return digest.Reader(untilEnd{ctx, f})
}

// untilEnd is a reader that ends with its context.
type untilEnd struct {
	context.Context
	in io.Reader
}

func (u untilEnd) Read(p []byte) (int, error) {
	if err := u.Err(); err != nil {
		return 0, err
	}
	return u.in.Read(p)
}
