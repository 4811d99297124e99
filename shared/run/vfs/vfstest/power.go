package vfstest

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/run/vfs"
)

// Recorder is a file system that writes to a real folder and remembers what was done, in order, so that a test can see
// what a power cut would have left of it at every moment. The folder is empty at the beginning.
//
// The model of the disk is the weakest that POSIX allows. What was written to a file is lost unless the file was synced
// since, and an entry of a folder is lost unless the folder was synced since, each on its own and in any order: a
// rename may be kept and the bytes of the file lost, or a file kept in a folder that is lost. A rename within a folder
// is atomic; one between folders takes two entries. A write may be kept in part.
type Recorder struct {
	dir   string
	ops   []op
	inode map[string]int // by path below dir
	next  int
	marks map[string]int
}

// op is one change, or a sync.
type op struct {
	kind   string
	path   string // below the folder, of an entry or of a folder that is synced
	old    string // a second entry in the same folder, which goes at the same time
	inode  int    // of the file
	target string // of a symbolic link
	offset int64
	data   []byte
}

const (
	opEntry    = "entry" // path names inode, and old names nothing any more
	opFolder   = "folder"
	opSymlink  = "symlink"
	opRemove   = "remove"
	opWrite    = "write"
	opTruncate = "truncate"
	opSync     = "sync"
	opSyncDir  = "syncdir"
)

// Record returns a Recorder of what is done in dir.
func Record(dir string) *Recorder {
	return &Recorder{dir: filepath.Clean(dir), inode: map[string]int{}, marks: map[string]int{}}
}

// Mark remembers that a promise was made just now: Promised tells which hold at a power cut.
func (r *Recorder) Mark(promise string) { r.marks[promise] = len(r.ops) }

func (r *Recorder) below(path string) string {
	rel, err := filepath.Rel(r.dir, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		panic(fmt.Sprintf("%s is not in %s", path, r.dir))
	}
	return rel
}

func (r *Recorder) add(o op) { r.ops = append(r.ops, o) }

// OpenFile implements vfs.FS.
func (r *Recorder) OpenFile(path string, flag int, mode fs.FileMode) (vfs.File, error) {
	_, err := os.Lstat(path)
	isNew := err != nil
	f, err := vfs.OS.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	rel := r.below(path)
	if isNew {
		r.next++
		r.inode[rel] = r.next
		r.add(op{kind: opEntry, path: rel, inode: r.next})
	} else if flag&os.O_TRUNC != 0 {
		r.add(op{kind: opTruncate, inode: r.inode[rel]})
	}
	return &recorded{File: f, r: r, inode: r.inode[rel]}, nil
}

// Mkdir implements vfs.FS.
func (r *Recorder) Mkdir(path string, mode fs.FileMode) error {
	err := vfs.OS.Mkdir(path, mode)
	if err == nil {
		r.add(op{kind: opFolder, path: r.below(path)})
	}
	return err
}

// Rename implements vfs.FS.
func (r *Recorder) Rename(from, to string) error {
	target, _ := os.Readlink(from)
	if err := vfs.OS.Rename(from, to); err != nil {
		return err
	}
	old, rel := r.below(from), r.below(to)
	o := op{kind: opEntry, path: rel, inode: r.inode[old]}
	if target != "" {
		o = op{kind: opSymlink, path: rel, target: target}
	} else {
		r.inode[rel] = r.inode[old]
	}
	delete(r.inode, old)
	if filepath.Dir(old) == filepath.Dir(rel) {
		o.old = old
		r.add(o)
		return nil
	}
	r.add(o)
	r.add(op{kind: opRemove, path: old})
	return nil
}

// Link implements vfs.FS.
func (r *Recorder) Link(from, to string) error {
	err := vfs.OS.Link(from, to)
	if err == nil {
		r.inode[r.below(to)] = r.inode[r.below(from)]
		r.add(op{kind: opEntry, path: r.below(to), inode: r.inode[r.below(from)]})
	}
	return err
}

// Symlink implements vfs.FS.
func (r *Recorder) Symlink(target, path string) error {
	err := vfs.OS.Symlink(target, path)
	if err == nil {
		r.add(op{kind: opSymlink, path: r.below(path), target: target})
	}
	return err
}

// Remove implements vfs.FS.
func (r *Recorder) Remove(path string) error {
	err := vfs.OS.Remove(path)
	if err == nil {
		delete(r.inode, r.below(path))
		r.add(op{kind: opRemove, path: r.below(path)})
	}
	return err
}

// SyncDir implements vfs.FS.
func (r *Recorder) SyncDir(path string) error {
	if path != filepath.Dir(r.dir) {
		r.add(op{kind: opSyncDir, path: r.below(path)})
	}
	return nil
}

// recorded is an open file of a Recorder.
type recorded struct {
	vfs.File
	r     *Recorder
	inode int
}

func (f *recorded) Write(p []byte) (int, error) {
	at, err := f.Seek(0, 1)
	if err != nil {
		return 0, err
	}
	n, err := f.File.Write(p)
	f.r.add(op{kind: opWrite, inode: f.inode, offset: at, data: slices.Clone(p[:n])})
	return n, err
}

func (f *recorded) Truncate(size int64) error {
	err := f.File.Truncate(size)
	if err == nil {
		f.r.add(op{kind: opTruncate, inode: f.inode, offset: size})
	}
	return err
}

func (f *recorded) Sync() error {
	f.r.add(op{kind: opSync, inode: f.inode})
	return nil
}

// Crash is what a power cut may leave.
type Crash struct {
	When     string // after which operation, and what was lost
	Promised []string
	tree     map[string]node
}

// node is an entry of a tree. A folder has neither content nor target.
type node struct {
	folder  bool
	target  string
	content string
}

// manyPending is up to how many changes all subsets are tried that a power cut may keep.
const manyPending = 7

// Crashes calls each with every different state that a power cut may leave, at every moment of what was recorded. At a
// moment with more than manyPending changes that are not durable, it tries the subsets that lack one of them, have one
// of them, or are the first of them.
func (r *Recorder) Crashes(each func(Crash)) {
	seen := map[[32]byte]bool{}
	for k := range len(r.ops) + 1 {
		durable, pending := r.durable(k)
		for _, kept := range subsets(len(pending)) {
			applied := slices.Clone(durable)
			var lost []string
			for i, at := range pending {
				if kept[i] {
					applied = append(applied, at)
				} else {
					lost = append(lost, r.ops[at].String())
				}
			}
			slices.Sort(applied)
			when := "before the first operation"
			if k > 0 {
				when = fmt.Sprintf("after %d (%s)", k, r.ops[k-1])
			}
			for _, torn := range []bool{false, true} {
				if torn && (k == 0 || r.ops[k-1].kind != opWrite || !slices.Contains(applied, k-1)) {
					continue
				}
				c := Crash{When: fmt.Sprintf("%s, torn %v, without %v", when, torn, lost), tree: r.tree(applied, k-1, torn)}
				if sum := c.sum(); !seen[sum] {
					seen[sum] = true
					for promise, at := range r.marks {
						if at <= k {
							c.Promised = append(c.Promised, promise)
						}
					}
					slices.Sort(c.Promised)
					each(c)
				}
			}
		}
	}
}

func (o op) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", o.kind, cmp.Or(o.path, fmt.Sprintf("file %d", o.inode)), o.old))
}

// durable sorts the changes among the first k operations into those that are durable, and those that are not.
func (r *Recorder) durable(k int) (durable, pending []int) {
	for i, o := range r.ops[:k] {
		kept := false
		for _, later := range r.ops[i+1 : k] {
			switch o.kind {
			case opWrite, opTruncate:
				kept = kept || later.kind == opSync && later.inode == o.inode
			default:
				kept = kept || later.kind == opSyncDir && later.path == filepath.Dir(o.path)
			}
		}
		switch {
		case o.kind == opSync || o.kind == opSyncDir:
		case kept:
			durable = append(durable, i)
		default:
			pending = append(pending, i)
		}
	}
	return durable, pending
}

// subsets are the sets of n things that are tried, as one truth value for each thing.
func subsets(n int) (all [][]bool) {
	if n <= manyPending {
		for bits := range 1 << n {
			set := make([]bool, n)
			for i := range set {
				set[i] = bits>>i&1 == 1
			}
			all = append(all, set)
		}
		return all
	}
	choose := func(has func(i int) bool) {
		set := make([]bool, n)
		for i := range set {
			set[i] = has(i)
		}
		all = append(all, set)
	}
	for one := range n {
		choose(func(i int) bool { return i == one })
		choose(func(i int) bool { return i != one })
		choose(func(i int) bool { return i < one })
	}
	choose(func(int) bool { return true })
	return all
}

// tree applies operations. With torn, only half of the write that is last is there.
func (r *Recorder) tree(applied []int, last int, torn bool) map[string]node {
	content := map[int][]byte{}
	type entry struct {
		node
		inode int
	}
	entries := map[string]entry{".": {node: node{folder: true}}}
	for _, i := range applied {
		o := r.ops[i]
		switch o.kind {
		case opWrite:
			data := o.data
			if torn && i == last {
				data = data[:len(data)/2]
			}
			content[o.inode] = write(content[o.inode], o.offset, data)
		case opTruncate:
			content[o.inode] = resize(content[o.inode], o.offset)
		case opRemove:
			delete(entries, o.path)
		case opEntry:
			delete(entries, o.old)
			entries[o.path] = entry{inode: o.inode}
		case opSymlink:
			delete(entries, o.old)
			entries[o.path] = entry{node: node{target: o.target}}
		case opFolder:
			entries[o.path] = entry{node: node{folder: true}}
		}
	}
	tree := map[string]node{}
	for path, e := range entries {
		there := true
		for above := filepath.Dir(path); above != "."; above = filepath.Dir(above) {
			there = there && entries[above].folder
		}
		if there && path != "." {
			e.content = string(content[e.inode])
			tree[path] = e.node
		}
	}
	return tree
}

func write(b []byte, at int64, p []byte) []byte {
	b = resize(b, max(int64(len(b)), at+int64(len(p))))
	copy(b[at:], p)
	return b
}

// resize is a copy of b with the given length; what is new is zero.
func resize(b []byte, size int64) []byte {
	again := make([]byte, size)
	copy(again, b)
	return again
}

func (c Crash) sum() [32]byte {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(c.tree)) {
		fmt.Fprintf(&b, "%q %+v\n", path, c.tree[path])
	}
	return sha256.Sum256([]byte(b.String()))
}

// Restore writes what is left into a new folder.
func (c Crash) Restore(t *testing.T, dir string) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(c.tree)) { // a folder before what is in it
		n, full := c.tree[path], filepath.Join(dir, path)
		var err error
		switch {
		case n.folder:
			err = os.Mkdir(full, 0o755)
		case n.target != "":
			err = os.Symlink(n.target, full)
		default:
			err = os.WriteFile(full, []byte(n.content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
