//go:build cuda

// Package nccl holds the few calls of NCCL, NVIDIA's library for the exchange between GPUs, that ranks of one host
// need. It loads the library at run time: programs start without it, and a single GPU computes without it. It keeps no
// state beside the loaded library.
package nccl

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// As in nccl.h. An ID is passed by value.
typedef int Result;
typedef void *Handle;
typedef struct { char bytes[128]; } ID;
enum { success = 0, inProgress = 7, int64Type = 4, float32Type = 7, sum = 0 };

static struct {
  Result (*getVersion)(int *);
  Result (*getUniqueID)(ID *);
  Result (*commInitRank)(Handle *, int ranks, ID, int rank);
  Result (*commCuDevice)(Handle, int *);
  Result (*commGetAsyncError)(Handle, Result *);
  Result (*commAbort)(Handle);
  Result (*allReduce)(const void *, void *, size_t, int type, int operation, Handle, Handle stream);
  Result (*broadcast)(const void *, void *, size_t, int type, int root, Handle, Handle stream);
  Result (*groupStart)(void);
  Result (*groupEnd)(void);
  const char *(*getErrorString)(Result);
  const char *(*getLastError)(Handle);
} nccl;

static const struct { const char *name; void **function; } symbols[] = {
  {"ncclGetVersion", (void **)&nccl.getVersion},
  {"ncclGetUniqueId", (void **)&nccl.getUniqueID},
  {"ncclCommInitRank", (void **)&nccl.commInitRank},
  {"ncclCommCuDevice", (void **)&nccl.commCuDevice},
  {"ncclCommGetAsyncError", (void **)&nccl.commGetAsyncError},
  {"ncclCommAbort", (void **)&nccl.commAbort},
  {"ncclAllReduce", (void **)&nccl.allReduce},
  {"ncclBroadcast", (void **)&nccl.broadcast},
  {"ncclGroupStart", (void **)&nccl.groupStart},
  {"ncclGroupEnd", (void **)&nccl.groupEnd},
  {"ncclGetErrorString", (void **)&nccl.getErrorString},
  {"ncclGetLastError", (void **)&nccl.getLastError},
};

static char cause[512];

// Settings of the library, which reads them when it is first called. What the user has set stays.
static void set(void) {
  setenv("NCCL_NVLS_ENABLE", "0", 0);     // no multicast through NVLink: a fault of it outlasts the process
  setenv("NCCL_SOCKET_IFNAME", "=lo", 0); // ranks of one host need no port that others can reach
  setenv("NCCL_RUNTIME_CONNECT", "0", 0); // connect when ranks join, so that no call waits for others later
}

// load returns why the library cannot be used, or 0.
static const char *load(const char *path) {
  set();
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    snprintf(cause, sizeof cause, "%s", dlerror());
    return cause;
  }
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
    *symbols[i].function = dlsym(library, symbols[i].name);
    if (*symbols[i].function) continue;
    snprintf(cause, sizeof cause, "%s has no %s", path, symbols[i].name);
    dlclose(library);
    return cause;
  }
  return 0;
}

static Result getVersion(int *version) { return nccl.getVersion(version); }
static Result getUniqueID(ID *id) { return nccl.getUniqueID(id); }
static Result commInitRank(Handle *comm, int ranks, const ID *id, int rank) {
  return nccl.commInitRank(comm, ranks, *id, rank);
}
static Result commCuDevice(Handle comm, int *device) { return nccl.commCuDevice(comm, device); }
static Result commGetAsyncError(Handle comm, Result *error) { return nccl.commGetAsyncError(comm, error); }
static Result commAbort(Handle comm) { return nccl.commAbort(comm); }
static Result allReduce(uintptr_t x, size_t n, Handle comm, uintptr_t stream) {
  return nccl.allReduce((void *)x, (void *)x, n, int64Type, sum, comm, (Handle)stream);
}
static Result broadcast(uintptr_t x, size_t n, int root, Handle comm, uintptr_t stream) {
  return nccl.broadcast((void *)x, (void *)x, n, float32Type, root, comm, (Handle)stream);
}
static Result groupStart(void) { return nccl.groupStart(); }
static Result groupEnd(void) { return nccl.groupEnd(); }
static const char *getErrorString(Result r) { return nccl.getErrorString(r); }
static const char *getLastError(Handle comm) { return nccl.getLastError(comm); }
*/
import "C"

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"
)

// Variable names the environment variable with the library's path, where the loader does not find it by itself.
const Variable = "BITNET1_NCCL"

// leastVersion is 2.18, the first for CUDA 12 and Hopper that is still looked after, as ncclGetVersion counts.
const leastVersion = 21800

// ErrNotFound is what Load returns, wrapped, where there is no library.
var ErrNotFound = errors.New("NCCL cannot be loaded")

// Load finds the library: the file that the variable names, or libnccl.so.2 where the loader looks. Calling it again is
// cheap.
var Load = sync.OnceValue(func() error { return load(cmp.Or(os.Getenv(Variable), "libnccl.so.2")) })

func load(path string) error {
	const advice = "it exchanges gradients between GPUs: install it (package libnccl2 of NVIDIA's repository, or " +
		"pip install nvidia-nccl-cu12, which PyTorch brings along), and name its file in " + Variable +
		" where the loader does not find it, as in " + Variable + "=…/site-packages/nvidia/nccl/lib/libnccl.so.2"
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if cause := C.load(name); cause != nil {
		return fmt.Errorf("%w: %s: %s", ErrNotFound, C.GoString(cause), advice)
	}
	var version C.int
	if err := check(C.getVersion(&version), nil); err != nil {
		return fmt.Errorf("version of %s: %w", path, err)
	}
	if version < leastVersion {
		return fmt.Errorf("%s is NCCL %s: 2.18 or later is needed: %s", path, versionText(int(version)), advice)
	}
	return nil
}

func versionText(v int) string {
	if v < 10000 { // until 2.8
		return fmt.Sprintf("%d.%d.%d", v/1000, v%1000/100, v%100)
	}
	return fmt.Sprintf("%d.%d.%d", v/10000, v%10000/100, v%100)
}

// Error is a call that failed.
type Error struct {
	Result int // ncclResult_t
	Text   string
}

func (e Error) Error() string { return fmt.Sprintf("NCCL error %d: %s", e.Result, e.Text) }

// check gives r the library's name and the last message that it has about comm.
func check(r C.Result, comm C.Handle) error {
	if r == C.success {
		return nil
	}
	text := C.GoString(C.getErrorString(r))
	if last := C.GoString(C.getLastError(comm)); last != "" {
		text += ": " + last
	}
	return Error{int(r), text}
}

// NewID returns what all ranks have to be given to find one another: where this process waits for them.
func NewID() ([]byte, error) {
	if err := Load(); err != nil {
		return nil, err
	}
	var id C.ID
	if err := check(C.getUniqueID(&id), nil); err != nil {
		return nil, fmt.Errorf("ncclGetUniqueId: %w", err)
	}
	return C.GoBytes(unsafe.Pointer(&id), C.sizeof_ID), nil
}

// Comm is ncclComm_t: a rank among others. Its calls but Abort need the context of its GPU to be the thread's.
type Comm struct{ handle C.Handle }

// InitRank joins the GPU of the thread's context with those of the other ranks, and waits until all have called it.
func InitRank(id []byte, rank, ranks int) (*Comm, error) {
	if err := Load(); err != nil {
		return nil, err
	}
	if len(id) != C.sizeof_ID {
		return nil, fmt.Errorf("ncclCommInitRank: an id of %d bytes, want %d", len(id), C.sizeof_ID)
	}
	c := new(Comm)
	r := C.commInitRank(&c.handle, C.int(ranks), (*C.ID)(unsafe.Pointer(&id[0])), C.int(rank))
	if err := check(r, nil); err != nil {
		return nil, fmt.Errorf("ncclCommInitRank: %w", err)
	}
	return c, nil
}

// Device is the number of the GPU that the rank was joined with.
func (c *Comm) Device() (int, error) {
	var device C.int
	err := check(C.commCuDevice(c.handle, &device), c.handle)
	return int(device), err
}

// AllReduce enqueues on a stream that n int64 at address x become their sums over all ranks.
func (c *Comm) AllReduce(x uintptr, n int, stream uintptr) error {
	return check(C.allReduce(C.uintptr_t(x), C.size_t(n), c.handle, C.uintptr_t(stream)), c.handle)
}

// Broadcast enqueues on a stream that n float32 at address x become those of rank root.
func (c *Comm) Broadcast(x uintptr, n, root int, stream uintptr) error {
	return check(C.broadcast(C.uintptr_t(x), C.size_t(n), C.int(root), c.handle, C.uintptr_t(stream)), c.handle)
}

// Group has the exchanges that f enqueues go on together. The goroutine has to stay on its thread.
func Group(f func() error) error {
	if err := check(C.groupStart(), nil); err != nil {
		return fmt.Errorf("ncclGroupStart: %w", err)
	}
	err := f()
	if end := check(C.groupEnd(), nil); err == nil && end != nil {
		return fmt.Errorf("ncclGroupEnd: %w", end)
	}
	return err
}

// AsyncError is why exchanges that were enqueued fail, or nil.
func (c *Comm) AsyncError() error {
	var result C.Result
	if err := check(C.commGetAsyncError(c.handle, &result), c.handle); err != nil {
		return err
	}
	if result == C.inProgress {
		return nil
	}
	return check(result, c.handle)
}

// Abort ends what was enqueued, and frees c, which must not be used any more. Any thread may call it.
func (c *Comm) Abort() error { return check(C.commAbort(c.handle), nil) }
