//go:build cuda

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

// Both tables are written by generate.sh; a slot holds cushim_missing until the driver is loaded.
extern const char *cushim_names[];
extern void *cushim_slots[];

static void *library;
static char cause[512];

// What a driver function answers before cushim_load, or when the loaded driver lacks it: CUDA_ERROR_NOT_INITIALIZED.
int cushim_missing(void) { return 3; }

// gorgonia.org/cu calls cuInit while the program starts and exits the process when that fails, so this one succeeds and
// does nothing. The driver's own is called by cushim_load.
int cuInit(unsigned flags) {
  (void)flags;
  return 0;
}

static int give_up(int code, const char *why) {
  snprintf(cause, sizeof cause, "%s", why);
  if (library) dlclose(library);
  library = 0;
  return code;
}

// Returns 0, a negative number when there is no driver library, or the positive CUresult of its cuInit.
int cushim_load(void) {
  if (library) return 0;
  library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return give_up(-1, dlerror());
  int (*init)(unsigned) = (int (*)(unsigned))dlsym(library, "cuInit");
  if (!init) return give_up(-2, "libcuda.so.1 has no cuInit");
  int code = init(0);
  if (code) return give_up(code, "cuInit failed");
  for (int i = 0; cushim_names[i]; i++) {
    void *function = dlsym(library, cushim_names[i]);
    if (function) cushim_slots[i] = function;
  }
  return 0;
}

const char *cushim_cause(void) { return cause; }
