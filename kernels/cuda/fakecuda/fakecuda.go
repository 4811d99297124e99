// Package fakecuda builds a library that takes the places of the CUDA driver and of NCCL in tests on machines without a
// GPU: devices, memory, streams and exchanges between ranks work, and most kernels compute nothing (testdata/fake.c).
package fakecuda

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

//go:embed testdata/fake.c
var source []byte

// Environment builds the library and returns the variables with which a process uses it. It skips the test where there
// is no C compiler.
func Environment(t testing.TB) []string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler (cc) for a library that stands in for CUDA")
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	code, driver, nccl := in("fake.c"), in("libcuda.so.1"), in("libnccl.so.2")
	if err := os.WriteFile(code, source, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(cc, "-O1", "-shared", "-fPIC", "-w", "-o", driver, code, "-lpthread", "-lm").CombinedOutput()
	if err == nil {
		err = os.Symlink(driver, nccl) // one library: NCCL's streams are the driver's
	}
	if err != nil {
		t.Fatal(fmt.Errorf("building the stand-in for CUDA: %w: %s", err, out))
	}
	return []string{"LD_LIBRARY_PATH=" + dir, "TMPDIR=" + dir}
}
