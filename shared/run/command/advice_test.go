package command

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bitnet1/shared/digest"
	"bitnet1/shared/run/artifact"
	"bitnet1/shared/run/bus"
)

// trouble makes errors that users meet. Each key is a word that the advice about the error must contain.
func trouble(t *testing.T) map[string]error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("input"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, directory := artifact.Open(file)

	store, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ref, err := artifact.Put(store, "checkpoint", "application/octet-stream", "m", []byte("weights"))
	if err != nil {
		t.Fatal(err)
	}
	_, missing := store.Path(artifact.Ref{Digest: digest.Bytes(nil), Kind: "shard", Name: "s"})
	object := artifact.ObjectPath(store.Dir(), ref.Digest)
	if err := errors.Join(os.Chmod(object, 0o644), os.Truncate(object, 3)); err != nil {
		t.Fatal(err)
	}
	_, damaged := store.Path(ref)

	folder, err := artifact.OpenFolder(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	_, other := artifact.Put(folder, "text", "text/plain", "file", []byte("output"))
	if _, err := folder.Add("text", "text/plain", file); err != nil {
		t.Fatal(err)
	}
	_, taken := artifact.Put(folder, "text", "text/plain", "file", []byte("output"))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port := bus.StartServer(t.TempDir(), l.Addr().(*net.TCPAddr).Port)
	_, streams := bus.StartServer(filepath.Join(file, "nats"), 0)
	return map[string]error{
		"--data or BITNET1_DATA": directory, "made it with --force": missing, "made it with --force ": damaged,
		"--force to replace it": other, "another --out": taken, "--nats-port": port, "data directory with --data": streams,
	}
}

// The advice about errors of other packages is in the words of the command line.
func TestErrorsComeWithAdvice(t *testing.T) {
	all := trouble(t)
	all["make room"] = errors.Join(syscall.ENOSPC, artifact.ErrFull)
	all["write to with --data"] = artifact.ErrReadOnly
	given := map[string]bool{}
	for want, err := range all {
		if err == nil {
			t.Fatalf("%q: no error", want)
		}
		if strings.Contains(err.Error(), "--") {
			t.Errorf("%v: a package that has no command line speaks of flags", err)
		}
		var printed strings.Builder
		if status := ExitStatus("program", err, &printed); status != Failed ||
			!strings.Contains(printed.String(), strings.TrimSpace(want)) {
			t.Errorf("status %d, want %q in\n%s", status, want, printed.String())
		}
		for _, a := range advice {
			if strings.HasSuffix(printed.String(), a.say+"\n") {
				given[a.is.Error()] = true
			}
		}
	}
	if len(given) != len(advice) {
		t.Errorf("of %d pieces of advice only these are given: %v", len(advice), given)
	}
	once := Advised(artifact.ErrFull)
	if again := Advised(fmt.Errorf("tried for a while: %w", once)); strings.Count(again.Error(), "make room") != 1 {
		t.Errorf("advice is given twice: %v", again)
	}
	if err := errors.New("no advice"); Advised(err) != err {
		t.Error("what nobody knows more about is changed")
	}
}
