// Command ptx2go writes the Go launchers of the CUDA kernels. A kernel is declared once, in its source:
//
//	KERNEL(attention float, 256) void attend_pointer(const __grid_constant__ Attention a, uint32_t* out) { …
//
// From that line, and from the PTX that clang made of it, ptx2go writes a typed method of launch, the Go struct of
// every C struct among the parameters, and the kernel's entry in the list of kernels: its category in profiles, threads
// of a block and dynamic shared memory. Kernels that one C macro makes together become the fields of one Go struct,
// with a value for each use of the macro. Constants (constexpr int) become Go constants of the same name.
//
// The PTX states the size and alignment of every parameter. ptx2go refuses sources that do not fit it, and the Go
// structs are compared with it when they are compiled. It needs neither clang nor a GPU:
//
//	cd kernels/cuda && go run ./ptx2go            writes kernels_generated.go; compile.sh does so
//	cd kernels/cuda && go run ./ptx2go -check     fails if the file differs from what would be written
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

const generated = "kernels_generated.go"

func main() {
	check := flag.Bool("check", false, "compare "+generated+" with what would be written")
	flag.Parse()
	if err := run(".", *check); err != nil {
		fmt.Fprintln(os.Stderr, "ptx2go:", err)
		os.Exit(1)
	}
}

// run writes or checks the generated file of dir, which holds src and ptx.
func run(dir string, check bool) error {
	text, err := generate(dir)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, generated)
	if !check {
		return os.WriteFile(path, text, 0o644)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, text) {
		return errors.New(generated + " does not belong to src/ and ptx/: run kernels/cuda/compile.sh " +
			"and commit what it writes")
	}
	return nil
}

// generate returns the generated file.
func generate(dir string) ([]byte, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "src", "*.cu"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no sources in %s", filepath.Join(dir, "src"))
	}
	var units []*unit
	for _, path := range paths {
		name := filepath.Base(path)
		u, err := readUnit(dir, name)
		if err != nil {
			return nil, fmt.Errorf("src/%s: %w", name, err)
		}
		units = append(units, u)
	}
	return emit(units)
}

// readUnit reads one source and its PTX, and compares the two.
func readUnit(dir, name string) (*unit, error) {
	u, err := parse(filepath.Join(dir, "src"), name)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "ptx", u.name+".ptx"))
	if err != nil {
		return nil, err
	}
	u.module, err = parsePTX(string(text))
	if err != nil {
		return nil, fmt.Errorf("its PTX: %w", err)
	}
	return u, u.check()
}
