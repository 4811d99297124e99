package bucket_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"bitnet1/shared/run/bucket"
	"bitnet1/shared/s3/s3test"
)

// attached returns the bucket as a new data directory sees it.
func attached(t *testing.T, url string) *bucket.Bucket {
	t.Helper()
	dir := t.TempDir()
	if err := bucket.Attach(dir, url); err != nil {
		t.Fatal(err)
	}
	return bucket.Of(dir)
}

func TestBytesUnderKeys(t *testing.T) {
	server := s3test.Start(t)
	b := attached(t, server.URL("runs"))
	if _, err := b.Get("a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key without bytes: %v", err)
	}
	if _, err := b.Size("a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key without bytes: %v", err)
	}
	for key, text := range map[string]string{"a/b": "one", "a/c/d": "two", "ab": "three"} {
		if err := b.Put(key, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put("a/b", []byte("other")); err != nil {
		t.Fatal(err)
	}
	other := attached(t, server.URL("runs"))
	if got, err := other.Get("a/b"); err != nil || string(got) != "other" {
		t.Errorf("%q (%v)", got, err)
	}
	if size, err := other.Size("ab"); err != nil || size != 5 {
		t.Errorf("size %d (%v)", size, err)
	}
	var keys []string
	all, err := other.List("a/")
	for _, o := range all {
		keys = append(keys, fmt.Sprint(o.Key, o.Size))
	}
	if want := []string{"a/b5", "a/c/d3"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("listed %v (%v), want %v", keys, err, want)
	}
	if folders, err := other.Folders("a/"); err != nil || !slices.Equal(folders, []string{"c"}) {
		t.Errorf("folders %v (%v)", folders, err)
	}
	if elsewhere, err := attached(t, server.URL("other")).List(""); err != nil || len(elsewhere) > 0 {
		t.Errorf("another folder has %v (%v)", elsewhere, err)
	}
	if err := errors.Join(b.RemoveAll("a/"), b.Remove("not there")); err != nil {
		t.Error(err)
	}
	if all, err := other.List(""); err != nil || len(all) != 1 {
		t.Errorf("left %v (%v)", all, err)
	}
}

// An object of several parts, as large files are sent.
func TestLargeFiles(t *testing.T) {
	server := s3test.Start(t)
	b := attached(t, server.URL("runs"))
	content := bytes.Repeat([]byte("0123456789abcdef"), 800_000) // 12.8 MB
	path := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.Upload("large", path); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "back"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := b.Download("large", f); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, content) {
		t.Errorf("other bytes came back (%v)", err)
	}
}

// All that keeps hosts off one another rests on this.
func TestOneOfManyCreates(t *testing.T) {
	server := s3test.Start(t)
	for round := range 20 {
		key := fmt.Sprintf("round-%d", round)
		var made atomic.Int32
		var winner atomic.Value
		var wg sync.WaitGroup
		for i := range 8 {
			b := attached(t, server.URL("runs"))
			wg.Go(func() {
				text := fmt.Sprint("writer ", i)
				switch err := b.Create(key, []byte(text)); {
				case err == nil:
					made.Add(1)
					winner.Store(text)
				case !errors.Is(err, bucket.ErrExists):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got, err := attached(t, server.URL("runs")).Get(key)
		if made.Load() != 1 || err != nil || string(got) != winner.Load() {
			t.Fatalf("%s: %d of 8 created it, %v says so; it has %q (%v)", key, made.Load(), winner.Load(), got, err)
		}
	}
}

func TestAServerThatIsAwayForAWhile(t *testing.T) {
	server := s3test.Start(t)
	b := attached(t, server.URL("runs"))
	server.Kill()
	written := make(chan error, 1)
	go func() { written <- b.Put("a", []byte("patience")) }()
	server.Resume()
	if err := <-written; err != nil {
		t.Error(err)
	}
}

func TestCredentialsThatAreRefused(t *testing.T) {
	server := s3test.Start(t)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "another")
	err := attached(t, server.URL("runs")).Put("a", nil)
	if !errors.Is(err, bucket.ErrUnusable) || !strings.Contains(err.Error(), "AWS_SECRET_ACCESS_KEY") {
		t.Errorf("%v", err)
	}
}

func TestADirectoryBelongsToOneBucket(t *testing.T) {
	const url = "s3://shelf/runs?region=here"
	dir := t.TempDir()
	for range 2 {
		if err := bucket.Attach(dir, url); err != nil {
			t.Fatal(err)
		}
	}
	if err := bucket.Attach(dir, "s3://shelf/other?region=here"); err == nil || !strings.Contains(err.Error(), url) {
		t.Errorf("another bucket: %v", err)
	}
	if bucket.Of(t.TempDir()) != nil {
		t.Error("a directory without a bucket has one")
	}
	used := t.TempDir()
	if err := os.MkdirAll(filepath.Join(used, "objects", "ab"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := bucket.Attach(used, url); err == nil {
		t.Error("artifacts of a directory of its own would be hidden")
	}
	for _, bad := range []string{"shelf", "https://host/shelf", "s3://", "s3://key:secret@shelf/runs"} {
		if err := bucket.Attach(t.TempDir(), bad); err == nil {
			t.Errorf("%q is taken for a bucket", bad)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, bucket.FileName), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := bucket.Of(dir).Put("a", nil); !errors.Is(err, bucket.ErrUnusable) {
		t.Errorf("a damaged file: %v", err)
	}
}
