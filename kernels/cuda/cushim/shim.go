//go:build cuda

// Package cushim lets one binary start on machines with and without an NVIDIA driver: it satisfies the libcuda symbols
// that gorgonia.org/cu links against with jumps through a table, and fills the table from the driver found at run time.
// It wraps no driver call and holds no state beyond the loaded library.
package cushim

/*
#cgo LDFLAGS: -L${SRCDIR}/lib -ldl
int cushim_load(void);
const char *cushim_cause(void);
*/
import "C"

import (
	"fmt"
	"sync"
)

var load sync.Mutex // dlopen and the table are process-wide

// Load finds libcuda.so.1 and initialises it. Until it has returned nil, every driver call answers
// CUDA_ERROR_NOT_INITIALIZED. Calling it again is cheap.
func Load() error {
	load.Lock()
	defer load.Unlock()
	if code := C.cushim_load(); code != 0 {
		return fmt.Errorf("%s (code %d)", C.GoString(C.cushim_cause()), int(code))
	}
	return nil
}
