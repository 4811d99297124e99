package bucket

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// FileName is the file in a data directory that says to which bucket the directory is attached.
const FileName = ".bitnet1-bucket"

// attachment is the content of the file.
type attachment struct {
	About string `json:"about"`
	URL   string `json:"url"`
	Place string `json:"place"` // names the directory among those that are attached to the bucket
}

const about = "This data directory is its host's cache of the bucket. All programs of bitnet1 that are given the " +
	"directory find the bucket here."

// Attach attaches the data directory dir, which is made where it is missing, to the bucket of a URL. A directory that
// has artifacts, or another bucket, is refused: other hosts would not find what is in it.
func Attach(dir, address string) error {
	path := filepath.Join(dir, FileName)
	has, err := read(dir)
	switch {
	case err == nil && has.URL == address:
		return nil
	case err == nil:
		return fmt.Errorf("data directory %s belongs to the bucket %s: leave out --bucket, or choose another --data", dir,
			has.URL)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	for _, name := range []string{"objects", "jobs", "runs"} {
		if entries, err := os.ReadDir(filepath.Join(dir, name)); err == nil && len(entries) > 0 {
			return fmt.Errorf("data directory %s has %s of its own, which other hosts would not find: choose an empty --data "+
				"to use with --bucket", dir, name)
		}
	}
	if _, err := open(address); err != nil {
		return err
	}
	b, err := json.MarshalIndent(attachment{about, address, rand.Text()}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("data directory %s: %w", dir, err)
	}
	return create(path, append(b, '\n'), address)
}

// create makes the file whole, or finds that another process has made it.
func create(path string, b []byte, address string) error {
	f, err := os.CreateTemp(filepath.Dir(path), FileName+"-")
	if err != nil {
		return fmt.Errorf("attaching to the bucket: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Link(f.Name(), path)
	}
	if errors.Is(err, fs.ErrExist) {
		return Attach(filepath.Dir(path), address)
	}
	return err
}

func read(dir string) (a attachment, err error) {
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("%s: %w", filepath.Join(dir, FileName), err)
	}
	return a, nil
}

// opened has the buckets that this process uses, by what the file says.
var opened sync.Map

// Of returns the bucket that the data directory dir is attached to, nil where it is attached to none. If the bucket
// cannot be opened, all that is asked of it fails.
func Of(dir string) *Bucket {
	a, err := read(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &Bucket{unfit: fmt.Errorf("%w: %w", ErrUnusable, err)}
	}
	if b, ok := opened.Load(a); ok {
		return b.(*Bucket)
	}
	b, err := open(a.URL)
	if err != nil {
		return &Bucket{unfit: fmt.Errorf("%w: %w", ErrUnusable, err)}
	}
	b.place = a.Place
	first, _ := opened.LoadOrStore(a, b)
	return first.(*Bucket)
}
