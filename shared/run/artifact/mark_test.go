package artifact

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/vfs"
)

// lay makes files of the given names below dir.
func lay(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestADataDirectoryIsMarkedAndKnowsWhatWasThereBefore(t *testing.T) {
	dir := t.TempDir()
	_, err := Recognize(dir)
	wantError(t, err, dir, "no data directory")
	lay(t, dir, "books/a.parquet", "notes.txt")
	for range 2 { // the second time, what the project has made is there too
		if _, err := Open(dir); err != nil {
			t.Fatal(err)
		}
		lay(t, dir, "runs/r")
		if others, err := Recognize(dir); err != nil || !slices.Equal(others, []string{"books", "notes.txt"}) {
			t.Errorf("others: %v (%v)", others, err)
		}
	}
}

func TestADirectoryOfAnOlderVersionIsKnownByItsArtifacts(t *testing.T) {
	store := open(t)
	lay(t, store.Dir(), "runs/r")
	put(t, store, "x", []byte("x"))
	if err := RemoveMark(store.Dir()); err != nil { // the older version wrote none
		t.Fatal(err)
	}
	if others, err := Recognize(store.Dir()); err != nil || len(others) > 0 {
		t.Fatalf("others: %v (%v)", others, err)
	}
	if _, err := Open(store.Dir()); err != nil {
		t.Fatal(err)
	}
	if others, err := Recognize(store.Dir()); err != nil || len(others) > 0 {
		t.Fatalf("others: %v (%v)", others, err)
	}
}

func TestObjectsOfOtherProgramsAreLeftAlone(t *testing.T) {
	sum := digest.Bytes(nil)
	for name, laid := range map[string][]string{
		"git":             {"HEAD", "objects/info/packs", "objects/pack/pack-1.idx"},
		"loose objects":   {"objects/ab/" + strings.Repeat("0", 38)},
		"sha256":          {"objects/ab/" + strings.Repeat("0", 62)},
		"among artifacts": {"objects/" + sum[:2] + "/" + sum, "objects/" + sum[:2] + "/README"},
		"another folder":  {"objects/" + sum[:2] + "/" + sum, "objects/00/" + sum},
		"a file":          {"objects/ab"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lay(t, dir, laid...)
			_, err := Recognize(dir)
			wantError(t, err, "no data directory")
			_, err = Open(dir)
			wantError(t, err, filepath.Join(dir, "objects"), "not this project's", ErrDirectory.Error())
			if found := append(files(t, dir), marks(dir)...); len(found) != len(laid) {
				t.Errorf("now there are %v", found)
			}
		})
	}
}

func marks(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, ".bitnet1*"))
	return found
}

func TestADataDirectoryInUseIsNotSeized(t *testing.T) {
	store := open(t)
	_, err := Seize(store.Dir())
	wantError(t, err, store.Dir(), "in use")
	_ = store.use.Close()

	// An input of the folder is an artifact of the data directory. It is named by a link that lies elsewhere.
	lay(t, store.Dir(), "objects/in/put")
	outside := t.TempDir()
	if err := os.Symlink(filepath.Join(store.Dir(), "objects/in/put"), filepath.Join(outside, "link")); err != nil {
		t.Fatal(err)
	}
	folder, err := OpenFolder(filepath.Join(outside, "out"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Add("test", "", filepath.Join(outside, "link")); err != nil {
		t.Fatal(err)
	}
	_, err = Seize(store.Dir())
	wantError(t, err, "in use")
	for _, lock := range folder.used {
		_ = lock.Close()
	}

	lock, err := Seize(store.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	_, err = Open(store.Dir())
	wantError(t, err, "being removed")
	if marks := marks(store.Dir()); len(marks) != 1 {
		t.Errorf("left in the directory: %v", marks)
	}
}

// meeting lets another process's part take place right before and right after a link.
type meeting struct {
	vfs.FS
	do func()
}

func (m meeting) Link(from, to string) error {
	m.do()
	defer m.do()
	return m.FS.Link(from, to)
}

func TestProgramsThatMarkADirectoryAtOnceAllUseIt(t *testing.T) {
	dir := t.TempDir()
	uses := func() {
		if err := sweep(vfs.OS, dir, markName+"-"); err != nil {
			t.Error(err)
		}
		if exists(filepath.Join(dir, markName)) {
			other, err := occupy(vfs.OS, dir)
			if err != nil {
				t.Fatalf("a second program: %v", err)
			}
			_ = other.Close()
		}
	}
	first, err := occupy(meeting{vfs.OS, uses}, dir)
	if err != nil {
		t.Fatalf("the program that sets the mark: %v", err)
	}
	defer first.Close()
	if marks := marks(dir); len(marks) != 1 {
		t.Errorf("left in the directory: %v", marks)
	}
}

func TestWhatADeadProgramLeftBesideTheMarkIsSwept(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, markName+"-1234")
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	if marks := marks(dir); len(marks) != 1 || filepath.Base(marks[0]) != markName {
		t.Errorf("left in the directory: %v", marks)
	}
}
