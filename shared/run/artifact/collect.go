package artifact

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"bitnet1/shared/digest"
)

// Object is an artifact's file in a store.
type Object struct {
	Digest string
	Size   int64
}

// Objects lists what is in the store under dir.
func Objects(dir string) (all []Object, err error) {
	root := filepath.Join(dir, objectsName)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() || !digest.Valid(d.Name()) {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all = append(all, Object{Digest: d.Name(), Size: info.Size()})
		}
		return err
	})
	return all, err
}

// ObjectPath is where the store under dir keeps an artifact.
func ObjectPath(dir, digest string) string {
	return filepath.Join(dir, objectsName, digest[:2], digest)
}

// RemoveObject removes an artifact from the store under dir, which the caller has seized.
func RemoveObject(dir, digest string) error { return os.Remove(ObjectPath(dir, digest)) }
