package artifact

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"bitnet1/shared/run/bucket"
	"bitnet1/shared/s3/s3test"
)

// host opens the store of another host that shares the server's bucket.
func host(t *testing.T, server *s3test.Server) *Store {
	t.Helper()
	dir := t.TempDir()
	if err := bucket.Attach(dir, server.URL("runs")); err != nil {
		t.Fatal(err)
	}
	store, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestHostsShareArtifacts(t *testing.T) {
	server := s3test.Start(t)
	maker, reader := host(t, server), host(t, server)
	content := bytes.Repeat([]byte("tokens "), 1_000_000)
	ref := put(t, maker, "train-00001.arrow", content)
	if !reader.Has(ref) || !ReadOnly(reader.Dir()).Has(ref) {
		t.Error("another host does not have it")
	}
	path, err := reader.Path(ref)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("other bytes came back (%v)", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("mode %v, want read-only (%v)", info.Mode(), err)
	}
	if left := files(t, reader.temporary()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if b, err := os.ReadFile(server.Object("runs/" + objectKey(ref.Digest))); err != nil || !bytes.Equal(b, content) {
		t.Errorf("the bucket has not the layout of a data directory (%v)", err)
	}
	missing := ref
	missing.Digest = "00" + missing.Digest[2:]
	_, err = reader.Path(missing)
	wantError(t, err, ErrMissing.Error(), "bucket")
	if reader.Has(missing) {
		t.Error("what nobody made is there")
	}
}

func TestDamageInTheBucketIsNoticedAndMended(t *testing.T) {
	server := s3test.Start(t)
	maker, reader := host(t, server), host(t, server)
	content := []byte("a checkpoint of a certain length")
	ref := put(t, maker, "checkpoint", content)
	flipped := bytes.Clone(content)
	flipped[7] ^= 4
	if err := os.WriteFile(server.Object("runs/"+objectKey(ref.Digest)), flipped, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, checksums := range []string{"with", "without"} {
		_, err := reader.Path(ref)
		wantError(t, err, ErrDamaged.Error(), "checkpoint", "bucket")
		if found := files(t, reader.Dir()); len(found) != 1 || filepath.Base(found[0]) != bucket.FileName {
			t.Errorf("%s checksums of the storage, damaged bytes are kept: %v", checksums, found)
		}
		if err := os.RemoveAll(server.Attributes); err != nil {
			t.Fatal(err)
		}
	}
	put(t, maker, "checkpoint", content) // made again
	path, err := reader.Path(ref)
	if err != nil {
		t.Fatal(err)
	}
	// The copy on a host is only a copy.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, flipped, 0o644); err != nil {
		t.Fatal(err)
	}
	if path, err = ReadOnly(reader.Dir()).Path(ref); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("a damaged copy stays (%v)", err)
	}
}
