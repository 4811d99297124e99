// Hopper's asynchronous instructions, one function each: transaction barriers, bulk copies, warpgroup matrix multiply,
// clusters. And what kernels with these need beside them: shared memory by its address, items of work, registers. See
// mbarrier, cp.async.bulk, wgmma and setmaxnreg in the PTX ISA.
#pragma once

// The 128-byte tensor map that the driver encodes; opaque here.
struct alignas(64) TensorMap {
  char opaque[128];
};

// ---- Clusters ----

DEVICE int cluster_rank() {
  int r;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
DEVICE int cluster_size() {
  int n;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(n));
  return n;
}
DEVICE void cluster_sync() {
  asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
}

// ---- Transaction barriers (64 bits of shared memory each) ----

DEVICE void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialised barriers visible to the copy engine and to the other blocks of the cluster.
DEVICE void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Arrives and announces how many bytes the copy engine is going to deliver in this phase.
DEVICE void barrier_arrive_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Arrives at the barrier at the same address in block `rank` of this cluster. The scope of the fence is the block
// alone: what readers read through the matrix unit is complete when they arrive. A fence of the cluster's scope would
// invalidate the L1 cache at every stage.
DEVICE void barrier_arrive_at(uint32_t barrier, int rank) {
  asm volatile(
      "{ .reg .b32 remote; mapa.shared::cluster.u32 remote, %0, %1;\n\t"
      "mbarrier.arrive.shared::cluster.b64 _, [remote]; }" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
DEVICE void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
DEVICE void barrier_wait(uint32_t barrier, int parity) {
  asm volatile(
      "{ .reg .pred done;\n"
      "again:\n\t"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
      "@!done bra again; }" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// ---- Bulk copies, global to shared memory ----

DEVICE void copy_3d(uint32_t target, const TensorMap* map, uint32_t barrier, int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(target),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
DEVICE void copy_5d(uint32_t target, const TensorMap* map, uint32_t barrier, int c0, int c1, int c2, int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(target),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
}
// The same copies to every block of the cluster whose bit is set in `blocks`, each completing its own barrier.
DEVICE void copy_3d_multicast(
    uint32_t target, const TensorMap* map, uint32_t barrier, int c0, int c1, int c2, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(target),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "h"(blocks)
      : "memory");
}
DEVICE void copy_5d_multicast(
    uint32_t target, const TensorMap* map, uint32_t barrier, int c0, int c1, int c2, int c3, int c4, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(target),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "h"(blocks)
      : "memory");
}

// Copies bytes, a multiple of 16, from an address in global memory that is a multiple of 16.
DEVICE void copy_bytes(uint32_t target, const void* from, uint32_t barrier, int bytes) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(target),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// ---- Shared memory ----

// Loads 16 bytes that a bulk copy wrote. The compiler does not move the load above the wait for them.
DEVICE Int4 load_shared(uint32_t from) {
  Int4 v;
  asm volatile("ld.shared.v4.s32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "r"(from)
      : "memory");
  return v;
}

DEVICE void store_shared(uint32_t to, Int4 v) {
  asm volatile("st.shared.v4.s32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
DEVICE void store_shared_word(uint32_t to, uint32_t v) {
  asm volatile("st.volatile.shared.u32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}
DEVICE uint32_t load_shared_word(uint32_t from) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
  return v;
}

// The same of a word that another warp may change meanwhile, with no barrier between: the load is done each time.
DEVICE uint32_t poll_shared_word(uint32_t from) {
  uint32_t v;
  asm volatile("ld.volatile.shared.u32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
  return v;
}

struct alignas(8) Float2 {
  float x, y;
};
DEVICE Float2 load_shared_two(uint32_t from) {
  Float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(from) : "memory");
  return v;
}
DEVICE void store_shared(uint32_t to, Float2 v) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(v.x), "f"(v.y) : "memory");
}

// ---- Items of work, which blocks take one after the other ----

// The number of the next item, of which `taken` counts those that blocks have taken.
DEVICE int take(int* taken) {
  int item;
  asm volatile("atom.global.add.s32 %0, [%1], 1;" : "=r"(item) : "l"(taken) : "memory");
  return item;
}
DEVICE void sleep_nanoseconds(int n) { asm volatile("nanosleep.u32 %0;" ::"r"(n)); }

// ---- Registers and named barriers ----

template <int kCount> DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount> DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}
DEVICE void named_sync(int id, int threads) { asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
DEVICE void named_arrive(int id, int threads) {
  asm volatile("barrier.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Barrier `id` of a warpgroup, which also says whether the predicate holds anywhere.
DEVICE bool group_any(int id, bool predicate) {
  int result;
  asm volatile("{ .reg .pred p, q; setp.ne.s32 p, %2, 0; bar.red.or.pred q, %1, 128, p; selp.s32 %0, 1, 0, q; }"
      : "=r"(result)
      : "r"(id), "r"((int)predicate)
      : "memory");
  return result;
}

// ---- Warpgroup matrix multiply ----

// Describes a tile of 128-byte rows that the copy engine wrote with its 128-byte swizzle: 8 rows are one 1,024-byte
// atom.
DEVICE uint64_t swizzled_tile(uint32_t address) {
  return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending> DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

#define REGISTERS_8(d, i)                                                                                     \
  "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), "+r"(d[i + 6]), \
      "+r"(d[i + 7])
#define REGISTERS_32(d, i) REGISTERS_8(d, i), REGISTERS_8(d, i + 8), REGISTERS_8(d, i + 16), REGISTERS_8(d, i + 24)
#define REGISTERS_128(d) REGISTERS_32(d, 0), REGISTERS_32(d, 32), REGISTERS_32(d, 64), REGISTERS_32(d, 96)

// Tells the compiler that the accumulators change here, so that it moves no use of them above a wait.
DEVICE void warpgroup_fence_operand(int (&d)[128]) { asm volatile("" : REGISTERS_128(d)::"memory"); }

// The accumulators in the text of an instruction.
#define ACCUMULATOR_NAMES                                                                                     \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "     \
  "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, " \
  "%43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, " \
  "%85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, " \
  "%105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, "    \
  "%122, %123, %124, %125, %126, %127}, "

// d (64 x 256, int32) = popcount(A & B) (+ d when accumulate), over 256 bits of K; a and b describe 64 and 256 rows.
// Thread t of the warpgroup holds row 16 (t / 32) + t % 32 / 4 + 8 (i / 2 % 2), column 8 (i / 4) + 2 (t % 4) + i % 2 in
// d[i].
DEVICE void wgmma_and_popc(int (&d)[128], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %130, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n256k256.s32.b1.b1.and.popc " ACCUMULATOR_NAMES "%128, %129, accumulate; }"
      : REGISTERS_128(d)
      : "l"(a), "l"(b), "r"(accumulate));
}

// The same for d = A Bᵀ of signed bytes, over 32 of them.
DEVICE void wgmma_int8(int (&d)[128], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, %130, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 " ACCUMULATOR_NAMES "%128, %129, accumulate; }"
      : REGISTERS_128(d)
      : "l"(a), "l"(b), "r"(accumulate));
}
