package artifact

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/vfs"
)

// Keep puts what write writes into dir under a name that has its digest (KeptName), in place of what was kept under the
// name before. Kept finds the file. It is for large files of a job that change.
func Keep(fsys vfs.FS, dir, name string, write func(io.Writer) error) (sum string, err error) {
	if err := sweep(fsys, dir, temporaryPrefix); err != nil {
		return "", err
	}
	before, err := keptAs(dir, name)
	if err != nil {
		return "", err
	}
	var final string
	w, err := newWriter(fsys, dir, Ref{Kind: "file", Name: name}, func(temporary string, ref Ref) error {
		final = filepath.Join(dir, KeptName(name, ref.Digest))
		if err := fsys.Rename(temporary, final); err != nil {
			return err
		}
		return fsys.SyncDir(dir)
	})
	if err != nil {
		return "", err
	}
	defer w.Abort()
	if err := write(w); err != nil {
		return "", err
	}
	ref, err := w.Commit()
	if err != nil {
		return "", err
	}
	return ref.Digest, removeAll(fsys, slices.DeleteFunc(before, func(path string) bool { return path == final }))
}

// Kept is the path of the file that was kept last under a name in dir, its digest checked. The errors are
// fs.ErrNotExist and ErrDamaged. A file of that very name is of a version that kept no digests.
func Kept(dir, name string) (string, error) {
	all, err := keptAs(dir, name)
	if err != nil {
		return "", err
	}
	err = fmt.Errorf("%s: %w", filepath.Join(dir, name), fs.ErrNotExist)
	for _, path := range all {
		if err = VerifyKept(path); err == nil {
			return path, nil
		}
	}
	return "", err
}

// VerifyKept returns ErrDamaged if the name of a file ends with a digest, as Keep names files, that its bytes do not
// have.
func VerifyKept(path string) error {
	want, ok := digestIn(filepath.Base(path))
	if !ok {
		return nil
	}
	sum, _, err := digest.File(path)
	if err == nil && sum != want {
		err = fmt.Errorf("%s: %w (file damaged or truncated?)", path, ErrDamaged)
	}
	return err
}

// Forget removes what was kept under a name in dir.
func Forget(fsys vfs.FS, dir, name string) error {
	all, err := keptAs(dir, name)
	if err != nil {
		return err
	}
	return removeAll(fsys, all)
}

func removeAll(fsys vfs.FS, paths []string) error {
	for _, path := range paths {
		if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// KeptName is NAME-DIGEST.EXT, the name of what was kept as NAME.EXT.
func KeptName(name, sum string) string {
	ext := filepath.Ext(name)
	return strings.TrimSuffix(name, ext) + "-" + sum + ext
}

// IsKept reports whether a file of that name is one that Keep has put there.
func IsKept(name string) bool {
	_, ok := digestIn(name)
	return ok
}

// digestIn is the digest in the name of a file that Keep has put there.
func digestIn(name string) (sum string, ok bool) {
	stem := strings.TrimSuffix(name, filepath.Ext(name))
	_, sum, ok = strings.Cut(stem[max(0, len(stem)-65):], "-")
	return sum, ok && digest.Valid(sum)
}

// keptAs lists the files that were kept under a name in dir, the last one first. A power cut can leave two.
func keptAs(dir, name string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	type dated struct {
		path string
		time int64
	}
	var found []dated
	for _, e := range entries {
		if sum, ok := digestIn(e.Name()); e.Name() != name && (!ok || e.Name() != KeptName(name, sum)) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // removed since the listing
		}
		found = append(found, dated{filepath.Join(dir, e.Name()), info.ModTime().UnixNano()})
	}
	slices.SortFunc(found, func(a, b dated) int { return cmp.Compare(b.time, a.time) })
	var paths []string
	for _, f := range found {
		paths = append(paths, f.path)
	}
	return paths, nil
}
