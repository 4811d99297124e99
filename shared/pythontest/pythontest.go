// Package pythontest finds Python for tests that compare with it. The project itself needs no Python, so a test without
// one is skipped. All of shared/ may import the package.
package pythontest

import (
	"cmp"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Interpreter returns one that can import the modules: the one that BITNET1_PYTHON names, or python3. It skips the test
// where there is none.
func Interpreter(t testing.TB, modules ...string) string {
	t.Helper()
	name, list := cmp.Or(os.Getenv("BITNET1_PYTHON"), "python3"), strings.Join(modules, ", ")
	if out, err := exec.Command(name, "-c", "import "+list).CombinedOutput(); err != nil {
		t.Skipf("%s cannot import %s (BITNET1_PYTHON names another interpreter): %v %.80s", name, list, err, out)
	}
	return name
}
