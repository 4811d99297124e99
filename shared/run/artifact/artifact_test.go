package artifact

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bitnet1/shared/digest"
)

// writerFor is an environment variable. If it names a store, the test binary begins an artifact there and waits to be
// killed.
const writerFor = "BITNET1_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerFor); dir != "" {
		os.Exit(writeForever(dir))
	}
	os.Exit(m.Run())
}

func writeForever(dir string) int {
	store, err := Open(dir)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	w, err := store.Create("test", "text/plain", "half")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	_, _ = w.Write(make([]byte, 1<<20))
	fmt.Println("writing")
	time.Sleep(time.Hour) // until it is killed
	w.Abort()             // and so alive until then: a collected writer would lose its lock
	return 0
}

// put stores b and fails the test when it cannot.
func put(t *testing.T, space Space, name string, b []byte) Ref {
	t.Helper()
	ref, err := write(space, name, b)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func write(space Space, name string, b []byte) (Ref, error) {
	w, err := space.Create("test", "application/octet-stream", name)
	if err != nil {
		return Ref{}, err
	}
	defer w.Abort()
	if _, err := w.Write(b); err != nil {
		return Ref{}, err
	}
	return w.Commit()
}

func open(t *testing.T) *Store {
	t.Helper()
	store, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// files lists all files below dir but the mark.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != markName {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("error %v, want %q in it", err, part)
		}
	}
}

func TestBytesComeBackUnderTheirDigest(t *testing.T) {
	store := open(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 1 << 18, 1<<18 + 1, 3 << 20} {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		ref := put(t, store, "some.bin", b)
		if ref.Digest != digest.Bytes(b) || ref.Size != int64(size) || ref.Name != "some.bin" || ref.Kind != "test" {
			t.Errorf("%d bytes: reference %+v", size, ref)
		}
		if !store.Has(ref) {
			t.Errorf("%d bytes: not there", size)
		}
		path, err := store.Path(ref)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes: other bytes came back (%v)", size, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%d bytes: mode %v, want read-only", size, info.Mode())
		}
	}
}

func TestNothingIsVisibleBeforeCommit(t *testing.T) {
	store := open(t)
	w, err := store.Create("test", "", "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if found := files(t, store.objects()); len(found) > 0 {
		t.Errorf("visible before Commit: %v", found)
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	if found := files(t, store.Dir()); len(found) > 0 {
		t.Errorf("left after Abort: %v", found)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("an aborted artifact can be written to")
	}
	if _, err := w.Commit(); err == nil {
		t.Error("an aborted artifact can be committed")
	}
}

func TestAbortAfterCommitDoesNothing(t *testing.T) {
	store := open(t)
	w, err := store.Create("test", "", "x")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	if _, err := store.Path(ref); err != nil {
		t.Error(err)
	}
}

func TestDamageIsNoticedOnReading(t *testing.T) {
	for name, damage := range map[string]func(path string, b []byte) error{
		"flipped bit": func(path string, b []byte) error {
			b[len(b)/2] ^= 4
			return os.WriteFile(path, b, 0o644)
		},
		"truncated": func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)-1], 0o644) },
		"emptied":   func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o644) },
		"longer":    func(path string, b []byte) error { return os.WriteFile(path, append(b, 0), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			content := []byte("a checkpoint of a certain length")
			ref := put(t, store, "checkpoint", content)
			path := store.object(ref.Digest)
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := damage(path, bytes.Clone(content)); err != nil {
				t.Fatal(err)
			}
			_, err := store.Path(ref)
			wantError(t, err, ErrDamaged.Error(), "checkpoint")
			// The artifact is made again, which repairs it for this process too.
			if again := put(t, store, "checkpoint", content); again.Digest != ref.Digest {
				t.Fatalf("other digest %s", again.Digest)
			}
			if _, err := store.Path(ref); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMissingArtifactsAndHostileReferences(t *testing.T) {
	store := open(t)
	missing := Ref{Digest: strings.Repeat("0", 64), Kind: "shard", Name: "train-00001.arrow"}
	_, err := store.Path(missing)
	wantError(t, err, "shard train-00001.arrow", "is not in the store")
	for _, digest := range []string{"", "0", "../../../../etc/passwd", strings.Repeat("A", 64),
		strings.Repeat("0", 63) + "/"} {
		ref := Ref{Digest: digest, Kind: "shard", Name: "x"}
		if _, err := store.Path(ref); err == nil {
			t.Errorf("digest %q was taken", digest)
		}
		if store.Has(ref) {
			t.Errorf("digest %q is there", digest)
		}
	}
	ref := put(t, store, "x", []byte("four"))
	ref.Size++
	if store.Has(ref) {
		t.Error("a file of another size is taken for the artifact")
	}
}

func TestNamesThatAreNoFileNames(t *testing.T) {
	store := open(t)
	for _, name := range []string{"", ".", "..", ".hidden", "a/b", `a\b`, "a\x00b", "a\nb", "\x1b[2J", "\xff",
		strings.Repeat("x", 201)} {
		if _, err := store.Create("test", "", name); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
	for _, name := range []string{"a", "step-000600.safetensors", "Büro und Küche.txt", strings.Repeat("x", 200)} {
		put(t, store, name, []byte(name))
	}
}

func TestManyWritersOfTheSameBytes(t *testing.T) {
	dir := t.TempDir()
	content := bytes.Repeat([]byte("same "), 100_000)
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for range 8 {
		wg.Go(func() {
			for range 5 {
				store, err := Open(dir) // sweeps, while the others write
				if err == nil {
					var ref Ref
					if ref, err = write(store, "same", content); err == nil {
						_, err = store.Path(ref)
					}
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if found := files(t, dir); len(found) != 1 {
		t.Errorf("one artifact was written, found %v", found)
	}
}

func TestSweepTakesWhatDeadWritersLeftAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerFor+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "writing\n" {
		t.Fatalf("the writer said %q (%v)", line, err)
	}

	store, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if left := files(t, store.temporary()); len(left) != 1 {
		t.Fatalf("the writer is alive, its file must stay: %v", left)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left by a killed writer: %v", left)
	}
}

func TestDataDirectoryThatIsAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Open(file)
	wantError(t, err, file, ErrDirectory.Error())
}

func TestWriteFileReplacesAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "record")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	// A killed writer left this.
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), ".record.write"), make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 25 {
				if err := WriteFile(path, bytes.Repeat([]byte{byte('a' + i)}, 1000)); err != nil {
					t.Error(err)
				}
				b, err := os.ReadFile(path)
				if err != nil || len(b) != 1000 || strings.Trim(string(b), string(b[:1])) != "" {
					t.Errorf("a mixture or a part was read (%v)", err)
				}
			}
		})
	}
	wg.Wait()
	if found := files(t, filepath.Dir(path)); len(found) != 1 {
		t.Errorf("left behind: %v", found)
	}
}
