// The parts of the CUDA driver and of NCCL that this tree calls, without a GPU. Device memory is the host's. The kernels
// of fixed-point sums compute; all others do nothing. Copies and kernels are done when they are called, or when the graph
// that they were recorded in is launched. Exchanges go on beside them in a thread of each rank, through a file that the
// ranks share, and begin late: who reads too early sees it.
//
// FAKE_NCCL=FUNCTION:RESULT makes that function of NCCL answer RESULT; ncclCommGetAsyncError reports it. With rank1:RESULT
// rank 1 alone cannot join.
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { devices = 8, invalidValue = 1, notReady = 600, computeMajor = 75, multiprocessors = 16 };

typedef struct { void *kernel; uint64_t arguments[6]; } Node; // a clearing where there is no kernel
typedef struct { int count; Node nodes[256]; } Graph;
typedef struct { _Atomic long enqueued, done; Graph *recorded; } *Stream;
typedef struct { Stream stream; long enqueued; } *Event;

static _Thread_local uintptr_t current; // device number plus 1
static _Atomic int recording[devices + 1]; // by current

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *v) { *v = 13000; return 0; }
int cuDeviceGetCount(int *n) { *n = devices; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *name, int n, int d) { snprintf(name, n, "fake GPU"); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) {
  *v = a == computeMajor ? 8 : a == multiprocessors ? 4 : 0;
  return 0;
}
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)(uintptr_t)(d + 1); return 0; }
int cuCtxSetCurrent(void *c) { current = (uintptr_t)c; return 0; }
int cuGetErrorName(int r, const char **s) { *s = "FAKE"; return 0; }
int cuGetErrorString(int r, const char **s) { *s = "an error"; return 0; }

// Memory.
int cuMemAlloc_v2(uintptr_t *p, size_t n) { return !(*p = (uintptr_t)malloc(n)); }
int cuMemFree_v2(uintptr_t p) { free((void *)p); return 0; }
int cuMemHostAlloc(void **p, size_t n, unsigned flags) { return !(*p = malloc(n)); }
int cuMemFreeHost(void *p) { free(p); return 0; }
int cuMemGetInfo_v2(size_t *room, size_t *all) { *room = *all = (size_t)1 << 36; return 0; }
int cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t n, Stream s) { memcpy((void *)to, from, n); return 0; }
int cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t n, Stream s) { memcpy(to, (void *)from, n); return 0; }
int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t n, Stream s) {
  memmove((void *)to, (void *)from, n);
  return 0;
}

// Streams and events.
int cuStreamCreate(Stream *s, unsigned flags) { return !(*s = calloc(1, sizeof **s)); }
int cuCtxGetStreamPriorityRange(int *least, int *first) { *least = 0, *first = -5; return 0; }
int cuStreamCreateWithPriority(Stream *s, unsigned flags, int priority) {
  return priority == -5 ? cuStreamCreate(s, flags) : invalidValue;
}
int cuStreamDestroy_v2(Stream s) { return 0; }
int cuStreamSynchronize(Stream s) { return 0; }
int cuStreamWaitEvent(Stream s, Event e, unsigned flags) { return e->stream ? 0 : invalidValue; }
int cuEventCreate(Event *e, unsigned flags) { return !(*e = calloc(1, sizeof **e)); }
int cuEventDestroy_v2(Event e) { free(e); return 0; }
int cuEventRecord(Event e, Stream s) { e->stream = s; e->enqueued = s->enqueued; return 0; }
int cuEventQuery(Event e) { return e->stream->done < e->enqueued ? notReady : 0; }
int cuEventSynchronize(Event e) { return 0; }
int cuEventElapsedTime(float *ms, Event begin, Event end) {
  *ms = 0.25;
  return !begin->stream || !end->stream ? invalidValue : 0;
}

// Kernels.
int cuModuleLoadData(void **m, const void *image) { *m = (void *)1; return 0; }
int cuModuleGetFunction(void **f, void *m, const char *name) { return !(*f = strdup(name)); }
int cuFuncSetAttribute(void *f, int a, int v) { return 0; }
int cuTensorMapEncodeTiled(void *map) { return 0; }

static void add_fixed(int64_t *sums, int64_t *overflow, const float *x, long n, double limit, double units) {
  for (long i = 0; i < n; i++) {
    double v = x[i];
    if (fabs(v) < limit) sums[i] += (int64_t)rint(v * units);
    else ++*overflow;
  }
}

static void set_fixed(int64_t *sums, int64_t *overflow, const float *x, long n, double limit, double units) {
  memset(sums, 0, 8 * n);
  add_fixed(sums, overflow, x, n, limit, units);
}

static void read_fixed(float *x, long n, const int64_t *sums, const int64_t *overflow, float unit) {
  for (long i = 0; i < n; i++) x[i] = *overflow ? NAN : (float)sums[i] * unit;
}

static double as_double(uint64_t bits) { double v; memcpy(&v, &bits, 8); return v; }
static float as_float(uint64_t bits) { float v; memcpy(&v, &bits, 4); return v; }

static void compute(const Node *n) {
  const uint64_t *a = n->arguments;
  if (!n->kernel)
    memset((void *)a[0], a[1], a[2]);
  else if (!strcmp(n->kernel, "add_fixed") || !strcmp(n->kernel, "set_fixed"))
    (*(char *)n->kernel == 'a' ? add_fixed : set_fixed)((int64_t *)a[0], (int64_t *)a[1], (const float *)a[2], a[3],
        as_double(a[4]), as_double(a[5]));
  else
    read_fixed((float *)a[0], a[1], (const int64_t *)a[2], (const int64_t *)a[3], as_float(a[4]));
}

// run computes, or adds to the graph that the stream records.
static int run(Stream s, Node n) {
  if (!s->recorded) return compute(&n), 0;
  if (s->recorded->count == sizeof s->recorded->nodes / sizeof n) return invalidValue;
  s->recorded->nodes[s->recorded->count++] = n;
  return 0;
}

int cuMemsetD8Async(uintptr_t p, unsigned char v, size_t n, Stream s) { return run(s, (Node){0, {p, v, n}}); }

int cuLaunchKernelEx(const struct { unsigned sizes[7]; Stream stream; } *config, void *f, void **a, void **extra) {
  int count = !strcmp(f, "add_fixed") || !strcmp(f, "set_fixed") ? 6 : !strcmp(f, "read_fixed") ? 5 : 0;
  Node n = {f};
  for (int i = 0; i < count; i++) memcpy(&n.arguments[i], a[i], count == 5 && i == 4 ? 4 : 8);
  return count ? run(config->stream, n) : 0;
}

int cuStreamBeginCapture_v2(Stream s, int mode) {
  recording[current]++;
  return !(s->recorded = calloc(1, sizeof(Graph)));
}
int cuStreamEndCapture(Stream s, Graph **g) { recording[current]--; *g = s->recorded; s->recorded = 0; return 0; }
int cuGraphInstantiateWithFlags(Graph **e, Graph *g, unsigned long long flags) {
  if (!(*e = malloc(sizeof *g))) return 1;
  **e = *g;
  return 0;
}
int cuGraphLaunch(Graph *e, Stream s) {
  for (int i = 0; i < e->count; i++) compute(&e->nodes[i]);
  return 0;
}
int cuGraphDestroy(Graph *g) { free(g); return 0; }
int cuGraphExecDestroy(Graph *e) { free(e); return 0; }

// NCCL.
enum { maxRanks = 8, piece = 1 << 16, invalidArgument = 4, invalidUsage = 5 };

enum { mark = 42 };
typedef struct { char path[127], mark; } ID; // all of it has to arrive
typedef struct { int isBroadcast, root; char *x; size_t bytes; } Exchange;

typedef struct {
  _Atomic long arrived[maxRanks];
  struct { int isBroadcast, root; size_t bytes; } kind[maxRanks];
  char data[maxRanks][piece];
} Shared;

typedef struct {
  int rank, ranks, device;
  Shared *shared;
  Stream stream; // of all exchanges
  Exchange queue[1024];
  _Atomic long enqueued, done;
  _Atomic int aborted, error;
  pthread_t thread;
} *Comm;

// injected is the result that FAKE_NCCL wants of a function, or 0.
static int injected(const char *function) {
  const char *e = getenv("FAKE_NCCL");
  size_t n = strlen(function);
  return e && !strncmp(e, function, n) && e[n] == ':' ? atoi(e + n + 1) : 0;
}

// meet waits for all ranks. It returns 0 when the communicator is aborted.
static int meet(Comm c) {
  long mine = ++c->shared->arrived[c->rank];
  for (int i = 0; i < c->ranks; i++)
    while (c->shared->arrived[i] < mine) {
      if (c->aborted) return 0;
      usleep(20);
    }
  return 1;
}

static int exchange(Comm c, Exchange e) {
  Shared *s = c->shared;
  s->kind[c->rank].isBroadcast = e.isBroadcast, s->kind[c->rank].root = e.root, s->kind[c->rank].bytes = e.bytes;
  if (!meet(c)) return 0;
  for (int i = 0; i < c->ranks; i++)
    if (memcmp(&s->kind[i], &s->kind[c->rank], sizeof *s->kind)) c->error = invalidUsage;
  if (c->error || !meet(c)) return 0; // nobody may begin the next exchange before all have compared
  for (size_t at = 0; at < e.bytes; at += piece) {
    size_t n = e.bytes - at < piece ? e.bytes - at : piece;
    memcpy(s->data[c->rank], e.x + at, n);
    if (!meet(c)) return 0;
    if (e.isBroadcast) {
      memcpy(e.x + at, s->data[e.root], n);
    } else {
      int64_t *x = (int64_t *)(e.x + at);
      for (size_t i = 0; i < n / 8; i++) {
        x[i] = 0;
        for (int r = 0; r < c->ranks; r++) x[i] += ((int64_t *)s->data[r])[i];
      }
    }
    if (!meet(c)) return 0;
  }
  return 1;
}

static void *work(void *p) {
  Comm c = p;
  for (; !c->aborted; usleep(50)) {
    while (c->done < c->enqueued && !c->aborted && !c->error) {
      usleep(300);
      if (!exchange(c, c->queue[c->done % 1024])) break;
      ++c->done;
      ++c->stream->done;
    }
    if (c->error) break;
  }
  return 0;
}

int ncclGetVersion(int *v) {
  int wanted = injected("ncclGetVersion");
  *v = wanted ? wanted : 22700;
  return 0;
}

// isSet says whether the library would see a variable with that value.
static int isSet(const char *name, const char *value) {
  const char *v = getenv(name);
  return v && !strcmp(v, value);
}

int ncclGetUniqueId(ID *id) {
  int fd;
  if (!isSet("NCCL_NVLS_ENABLE", "0") || !isSet("NCCL_SOCKET_IFNAME", "=lo")) return invalidUsage;
  const char *dir = getenv("TMPDIR");
  memset(id, 0, sizeof *id);
  id->mark = mark;
  snprintf(id->path, sizeof id->path, "%s/fake-nccl-XXXXXX", dir ? dir : "/tmp");
  if ((fd = mkstemp(id->path)) < 0) return 2;
  if (ftruncate(fd, sizeof(Shared))) return 2;
  close(fd);
  return injected("ncclGetUniqueId");
}

int ncclCommInitRank(Comm *out, int ranks, ID id, int rank) {
  if (injected("ncclCommInitRank")) return injected("ncclCommInitRank");
  if (rank == 1 && injected("rank1")) return injected("rank1"); // the others wait for it
  if (id.mark != mark || rank < 0 || rank >= ranks || ranks > maxRanks || !current) return invalidArgument;
  int fd = open(id.path, O_RDWR);
  if (fd < 0) return invalidArgument;
  Comm c = calloc(1, sizeof *c);
  c->rank = rank, c->ranks = ranks, c->device = (int)current - 1;
  c->shared = mmap(0, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  meet(c);
  unlink(id.path);
  pthread_create(&c->thread, 0, work, c);
  *out = c;
  return 0;
}

int ncclCommCuDevice(Comm c, int *device) {
  int wanted = injected("ncclCommCuDevice");
  *device = wanted ? wanted : c->device;
  return 0;
}

int ncclCommGetAsyncError(Comm c, int *error) {
  *error = c->error ? c->error : injected("ncclCommGetAsyncError");
  return 0;
}

int ncclCommAbort(Comm c) {
  c->aborted = 1;
  pthread_join(c->thread, 0);
  if (c->stream) c->stream->done = c->stream->enqueued;
  return 0;
}

// A group's exchanges begin with its end.
static _Thread_local struct { int open, count; struct { Comm c; Stream s; Exchange e; } all[64]; } group;

static int enqueue(Comm c, Stream s, Exchange e) {
  if (!s || (!e.x && e.bytes) || !c || current != (uintptr_t)c->device + 1 || recording[current]) return invalidArgument;
  if (group.open) {
    if (group.count == 64) return invalidUsage;
    group.all[group.count].c = c, group.all[group.count].s = s, group.all[group.count++].e = e;
    return 0;
  }
  c->stream = s;
  s->enqueued++;
  c->queue[c->enqueued % 1024] = e;
  c->enqueued++;
  return 0;
}

int ncclGroupStart(void) { return group.open++ ? invalidUsage : injected("ncclGroupStart"); }
int ncclGroupEnd(void) {
  int count = group.count;
  group.open = group.count = 0;
  for (int i = 0; i < count; i++) enqueue(group.all[i].c, group.all[i].s, group.all[i].e);
  return injected("ncclGroupEnd");
}

int ncclAllReduce(const void *from, void *to, size_t n, int type, int operation, Comm c, Stream s) {
  if (from != to || type != 4 || operation != 0) return invalidArgument; // ncclInt64, ncclSum
  if (injected("ncclAllReduce")) return injected("ncclAllReduce");
  return enqueue(c, s, (Exchange){0, 0, to, 8 * n});
}

int ncclBroadcast(const void *from, void *to, size_t n, int type, int root, Comm c, Stream s) {
  if (from != to || type != 7 || root < 0 || root >= c->ranks) return invalidArgument; // ncclFloat32
  return enqueue(c, s, (Exchange){1, root, to, 4 * n});
}

const char *ncclGetErrorString(int r) { return r == 3 ? "internal error" : "fake error"; }
const char *ncclGetLastError(Comm c) { return "what the fake said last"; }
