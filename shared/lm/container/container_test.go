package container

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestTheFileStaysOpenForWhatReadsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tensors")
	if err := os.WriteFile(path, []byte("1234567"), 0o644); err != nil {
		t.Fatal(err)
	}
	var source io.ReaderAt
	failure := error(nil)
	read := func(name string, r io.ReaderAt, size int64) (int64, error) {
		if source = r; name != path {
			t.Errorf("the file is called %s", name)
		}
		return size, failure
	}
	isOpen := func() bool {
		_, err := source.ReadAt(make([]byte, 1), 6)
		return !errors.Is(err, fs.ErrClosed)
	}

	size, close, err := Open(path, read)
	if err != nil || size != 7 || !isOpen() {
		t.Fatalf("%d bytes, open: %v, %v", size, isOpen(), err)
	}
	if close(); isOpen() {
		t.Error("close left the file open")
	}

	failure = errors.New("damaged")
	if _, _, err := Open(path, read); !errors.Is(err, failure) || isOpen() {
		t.Errorf("a file that is refused gave %v, open: %v", err, isOpen())
	}
	if _, _, err := Open(path+"x", read); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file gave %v", err)
	}
}
