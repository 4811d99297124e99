package artifact

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/vfs"
)

// Folder is the Space of a one-shot stage: outputs are plain files with their names in one directory, inputs are files
// that the user named.
type Folder struct {
	dir string

	mu     sync.Mutex
	known  map[string]string // digest -> path, of inputs and outputs
	taken  map[string]string // path -> digest, of inputs and outputs
	own    map[string]bool   // names of files that may be replaced
	all    bool              // any file may be replaced
	search []string          // directories of the inputs, for files they mention by name
	used   []*os.File        // locks of the data directories that inputs lie in, which nobody removes meanwhile
}

// OpenFolder returns a Folder that writes into dir, creating it when missing.
func OpenFolder(dir string) (*Folder, error) {
	if err := vfs.MkdirAll(vfs.OS, dir); err != nil {
		return nil, fmt.Errorf("output directory: %w", explained(err))
	}
	if err := sweep(vfs.OS, dir, temporaryPrefix); err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	return &Folder{dir: dir, known: map[string]string{}, taken: map[string]string{}, own: map[string]bool{},
		search: []string{dir}}, nil
}

// NewInputs returns a Folder of inputs alone: nothing is written into it.
func NewInputs() *Folder {
	return &Folder{known: map[string]string{}, taken: map[string]string{}}
}

// Beside is a Store whose jobs also read files that a user named.
type Beside struct {
	*Store
	Files *Folder
}

// Path implements Space.
func (b Beside) Path(ref Ref) (string, error) {
	if b.Store.Has(ref) {
		return b.Store.Path(ref)
	}
	return b.Files.Path(ref)
}

// Dir is the output directory.
func (f *Folder) Dir() string { return f.dir }

// Add makes the file at path an input and returns a reference to it.
func (f *Folder) Add(kind, mediaType, path string) (Ref, error) {
	use, err := occupyAround(path)
	if err != nil {
		return Ref{}, fmt.Errorf("input %s: %w", path, err)
	}
	sum, size, err := digest.File(path)
	if err != nil {
		if info, failed := os.Stat(path); failed == nil && info.IsDir() {
			err = fmt.Errorf("%w: name a file in it", err)
			if kind == "manifest" {
				err = fmt.Errorf("%w, %s for instance", err, filepath.Join(path, "manifest.json"))
			}
		}
		return Ref{}, fmt.Errorf("input: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if use != nil {
		f.used = append(f.used, use)
	}
	f.remember(path, sum)
	f.search = append(f.search, filepath.Dir(path))
	return Ref{Digest: sum, Kind: kind, MediaType: mediaType, Size: size, Name: filepath.Base(path)}, nil
}

// Create implements Space.
func (f *Folder) Create(kind, mediaType, name string) (*Writer, error) {
	return newWriter(vfs.OS, f.dir, Ref{Kind: kind, MediaType: mediaType, Name: name}, f.place)
}

// remember must be called under the lock.
func (f *Folder) remember(path, digest string) {
	f.known[digest] = path
	if absolute, err := filepath.Abs(path); err == nil {
		f.taken[absolute] = digest
	}
}

func (f *Folder) place(temporary string, ref Ref) error {
	final := filepath.Join(f.dir, ref.Name)
	absolute, err := filepath.Abs(final)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if digest, ok := f.taken[absolute]; ok && digest != ref.Digest {
		return fmt.Errorf("%s %w", final, ErrTaken)
	}
	if _, err := os.Lstat(final); err == nil && !f.all && !f.own[ref.Name] && !f.Holds(ref) {
		return fmt.Errorf("%s %w", final, ErrOther)
	}
	if err := vfs.OS.Rename(temporary, final); err != nil {
		return err
	}
	f.remember(final, ref.Digest)
	return vfs.OS.SyncDir(f.dir)
}

// Holds reports whether the folder has the artifact, under its name and as it was made.
func (f *Folder) Holds(ref Ref) bool {
	if !ValidName(ref.Name) {
		return false
	}
	path := filepath.Join(f.dir, ref.Name)
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != ref.Size {
		return false
	}
	sum, _, err := digest.File(path)
	return err == nil && sum == ref.Digest
}

// Replace lets an output replace the file of that name, whatever is in it. Other files that are there are never
// replaced.
func (f *Folder) Replace(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.own[name] = true
}

// ReplaceAll lets outputs replace any file but an input, or ends that.
func (f *Folder) ReplaceAll(all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = all
}

// Replaces reports whether an output may replace the file of that name.
func (f *Folder) Replaces(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all || f.own[name]
}

// Path implements Space: an input or output by digest, otherwise a file of that name beside one of the inputs whose
// digest matches.
func (f *Folder) Path(ref Ref) (string, error) {
	f.mu.Lock()
	path, search := f.known[ref.Digest], append([]string(nil), f.search...)
	f.mu.Unlock()
	if path != "" {
		return path, nil
	}
	if !ValidName(ref.Name) {
		return "", fmt.Errorf("%s: not a file name", ref)
	}
	problem := fmt.Errorf("%s: no file of that name in %v (put it beside the input that mentions it)", ref, search)
	for _, dir := range search {
		candidate := filepath.Join(dir, ref.Name)
		if _, err := os.Stat(candidate); err != nil {
			continue
		}
		if err := verify(candidate, ref); err != nil {
			problem = err // another folder may have the right one
			continue
		}
		f.mu.Lock()
		f.remember(candidate, ref.Digest)
		f.mu.Unlock()
		return candidate, nil
	}
	return "", problem
}

// Has implements Space.
func (f *Folder) Has(ref Ref) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known[ref.Digest] != "" {
		return true
	}
	return ValidName(ref.Name) && slices.ContainsFunc(f.search, func(dir string) bool {
		info, err := os.Stat(filepath.Join(dir, ref.Name))
		return err == nil && info.Mode().IsRegular() && info.Size() == ref.Size
	})
}
