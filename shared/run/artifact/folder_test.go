package artifact

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitnet1/shared/digest"
)

func writeFiles(t *testing.T, dir string, content map[string]string) {
	t.Helper()
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func openFolder(t *testing.T, dir string) *Folder {
	t.Helper()
	folder, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestFolderKeepsOutputsUnderTheirNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	folder := openFolder(t, dir)
	ref := put(t, folder, "result.json", []byte("{}"))
	path, err := folder.Path(ref)
	if err != nil || path != filepath.Join(dir, "result.json") {
		t.Errorf("%s, %v", path, err)
	}
	if !folder.Has(ref) || folder.Has(Ref{Digest: strings.Repeat("0", 64)}) {
		t.Error("Has is wrong")
	}
	// A later run replaces the file if it is allowed to. It leaves an equal file as it is.
	put(t, openFolder(t, dir), "result.json", []byte("{}"))
	later := openFolder(t, dir)
	w, err := later.Create("test", "", "result.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("[]")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(); !errors.Is(err, ErrOther) {
		t.Errorf("another content replaces it: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "{}" {
		t.Errorf("%q, %v", b, err)
	}
	later.Replace("result.json")
	put(t, later, "result.json", []byte("[]"))
	if b, err := os.ReadFile(path); err != nil || string(b) != "[]" {
		t.Errorf("%q, %v", b, err)
	}
}

// An output directory may hold any files of the user. Opening it removes none of them.
func TestFolderLeavesTheUsersFilesAlone(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"artifact-of-mine.txt": "precious", "notes": "precious", ".write-up": "precious",
		"artifact-": "precious"})
	put(t, openFolder(t, dir), "result", []byte("x"))
	openFolder(t, dir)
	if found := files(t, dir); len(found) != 5 {
		t.Errorf("found %v", found)
	}
}

func TestFolderNeverOverwritesAnInputOrAnotherOutput(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"a/data.txt": "one", "b/data.txt": "two"})
	folder := openFolder(t, filepath.Join(dir, "a"))
	if _, err := folder.Add("text", "", filepath.Join(dir, "a", "data.txt")); err != nil {
		t.Fatal(err)
	}
	_, err := write(folder, "data.txt", []byte("changed"))
	wantError(t, err, "data.txt is an input")
	if b, _ := os.ReadFile(filepath.Join(dir, "a", "data.txt")); string(b) != "one" {
		t.Errorf("the input is now %q", b)
	}
	put(t, folder, "new.txt", []byte("first"))
	put(t, folder, "new.txt", []byte("first"))
	_, err = write(folder, "new.txt", []byte("second"))
	wantError(t, err, "the output of another one")
	if found := files(t, dir); len(found) != 3 {
		t.Errorf("found %v", found)
	}
}

func TestFolderFindsMentionedFilesBesideInputs(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"dataset/manifest.json": "{}", "dataset/train.arrow": "right", "out/train.arrow": "of an older run",
	})
	folder := openFolder(t, filepath.Join(dir, "out"))
	if _, err := folder.Add("manifest", "", filepath.Join(dir, "dataset", "manifest.json")); err != nil {
		t.Fatal(err)
	}
	mentioned := Ref{Digest: digest.Bytes([]byte("right")), Kind: "shard", Name: "train.arrow"}
	path, err := folder.Path(mentioned)
	if err != nil || path != filepath.Join(dir, "dataset", "train.arrow") {
		t.Errorf("%s, %v", path, err)
	}
	_, err = folder.Path(Ref{Digest: digest.Bytes([]byte("wrong")), Kind: "shard", Name: "train.arrow"})
	wantError(t, err, "digest differs")
	_, err = folder.Path(Ref{Digest: digest.Bytes([]byte("wrong")), Kind: "shard", Name: "absent.arrow"})
	wantError(t, err, "no file of that name", "put it beside")
	_, err = folder.Path(Ref{Digest: digest.Bytes([]byte("{}x")), Kind: "shard", Name: "../dataset/manifest.json"})
	wantError(t, err, "not a file name")
}

func TestFolderNamesTheInputThatIsMissing(t *testing.T) {
	folder := openFolder(t, t.TempDir())
	_, err := folder.Add("text", "", "no/such/file")
	wantError(t, err, "input no/such/file")
}
