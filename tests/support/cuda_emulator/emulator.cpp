// Runs kernels: one fiber per GPU thread, blocks one after another, all on the calling thread. A fiber runs until it
// waits for its warp or its block, or ends; then the next one that can go on runs. The environment variable EMU_SEED,
// if not 0, permutes the order of threads and blocks.
//
// Meanwhile denormals count as zeros, as they do in kernels that CuPy compiles (-ftz=true), so that a float operation
// that should not go by this is seen; not so with EMU_FLUSH=0, which is what nvcc compiles.
//
// This file is compiled without -fsanitize, and tells the sanitizers of its fibers: EMULATOR_ASAN, EMULATOR_TSAN.
// ThreadSanitizer takes every fiber for a thread, and knows no order between them but what is announced here: the
// start and the end of a launch, and barriers. So it reports two threads that touch a word with no barrier between,
// however the fibers happened to run.
#include "emulator.h"

#include <sys/mman.h>
#include <xmmintrin.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <vector>

#ifdef EMULATOR_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMULATOR_TSAN
extern "C" {
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void* __tsan_get_current_fiber();
void __tsan_acquire(void* object);
void __tsan_release(void* object);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#else
static void __tsan_acquire(void*) {}
static void __tsan_release(void*) {}
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

// Save the registers that a call preserves on this stack, and go on at another: swapcontext without its system calls.
#ifndef __x86_64__
#error "the emulator switches fibers in x86-64 assembly"
#endif
extern "C" void emulator_switch_stack(void** from, void* to);
asm(R"(
.text
.globl emulator_switch_stack
.hidden emulator_switch_stack
emulator_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

namespace emulator {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kSharedBytes = 48 << 10;  // what a block gets without asking for more
constexpr unsigned kMostThreads = 1024;
// A barrier orders a block behind all that its fibers did before, so the fibers of a block must not be those of the
// block before, or ThreadSanitizer would think the two in order. Blocks take turns with this many sets of fibers;
// to make new ones for every block would exhaust it.
#ifdef EMULATOR_TSAN
constexpr unsigned kFiberSets = 4;
#else
constexpr unsigned kFiberSets = 1;
#endif

enum class State { kReady, kInWarpCall, kAtBarrier, kEnded };

struct Stack {
  char* memory = nullptr;
  size_t n_bytes = 0;
  void* tsan_fiber = nullptr;
};

struct Fiber {
  unsigned id = 0;
  dim3 thread;
  State state = State::kReady;
  Stack stack;
  void* stack_pointer = nullptr;
  void* asan_fake_stack = nullptr;
  // The warp call in which it waits.
  unsigned mask = 0;
  const char* call = "";
  Lane given{};
};

struct Warp {
  Lane given[32];
  unsigned took_part[32] = {};  // the lanes of the last call, for each lane
  unsigned living = 0;
  unsigned waiting = 0;
  unsigned episode = 0;
};

struct SharedPiece {
  const void* declaration;
  void* memory;
};

std::vector<Stack> stacks;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::vector<SharedPiece> static_pieces;
size_t static_bytes;
void* dynamic_memory;
size_t dynamic_bytes;
Fiber main_fiber;
Fiber* current = &main_fiber;
void (*kernel_)(void*);
void* context_;
unsigned n_living, n_at_barrier;
unsigned long n_blocks_run;
char failure[512];

// Each barrier has an object of its own to synchronise on. With one object for all, a thread that passes an early
// barrier late would also see what others did before a later one, and a missing barrier would go unnoticed.
uint64_t episodes[1 << 16];
unsigned n_episodes, block_episode;
char launch_begins, launch_ends;

void* object_of(unsigned episode) { return &episodes[episode & 0xffff]; }

// Do the emulator's own writes unseen by ThreadSanitizer.
template <class Work>
void unseen(Work work) {
#ifdef EMULATOR_TSAN
  AnnotateIgnoreWritesBegin("", 0);
#endif
  work();
#ifdef EMULATOR_TSAN
  AnnotateIgnoreWritesEnd("", 0);
#endif
}

void switch_to(Fiber* to, [[maybe_unused]] bool for_ever = false) {
  Fiber* from = current;
  current = to;
  threadIdx = to->thread;
#ifdef EMULATOR_ASAN
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &from->asan_fake_stack, to->stack.memory, to->stack.n_bytes);
#endif
#ifdef EMULATOR_TSAN
  __tsan_switch_to_fiber(to->stack.tsan_fiber, 1);  // 1: what came before on this fiber is not before what follows
#endif
  emulator_switch_stack(&from->stack_pointer, to->stack_pointer);
#ifdef EMULATOR_ASAN
  __sanitizer_finish_switch_fiber(from->asan_fake_stack, nullptr, nullptr);
#endif
}

// Note what went wrong; a fiber is left for good, and `run` returns.
void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  int length = vsnprintf(failure, sizeof failure, format, values);
  va_end(values);
  length = std::min(length, static_cast<int>(sizeof failure) - 1);
  snprintf(failure + length, sizeof failure - length, " [block %u,%u,%u]", blockIdx.x, blockIdx.y, blockIdx.z);
  if (current != &main_fiber) switch_to(&main_fiber);
}

void* filled(size_t n_bytes) {
  void* memory = nullptr;
  unseen([&] {
    if (posix_memalign(&memory, 16, n_bytes)) abort();
    memset(memory, 0xCD, n_bytes);
  });
  return memory;
}

// Let a warp call happen, if all that must take part are there.
void try_warp_call(Warp& warp, const Fiber& fiber) {
  const unsigned needed = fiber.mask & warp.living;
  if (needed & ~warp.waiting) return;
  Fiber* lanes = &fibers[fiber.id & ~31u];
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(needed >> lane & 1)) continue;
    const Fiber& other = lanes[lane];
    if (strcmp(other.call, fiber.call))
      return fail("lane %u waits in %s but lane %u in %s", other.id & 31, other.call, fiber.id & 31, fiber.call);
    if (other.mask != fiber.mask) return fail("%s: masks differ: %08x and %08x", fiber.call, other.mask, fiber.mask);
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(needed >> lane & 1)) continue;
    warp.given[lane] = lanes[lane].given;
    warp.took_part[lane] = needed;
    lanes[lane].state = State::kReady;
  }
  warp.waiting &= ~needed;
  warp.episode = ++n_episodes;
}

void try_barrier() {
  if (!n_at_barrier || n_at_barrier != n_living) return;
  for (Fiber& fiber : fibers)
    if (fiber.state == State::kAtBarrier) fiber.state = State::kReady;
  n_at_barrier = 0;
  block_episode = ++n_episodes;
}

// The first and the last of every fiber.
void fiber_main() {
#ifdef EMULATOR_ASAN
  const void* bottom;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &main_fiber.stack.n_bytes);
  main_fiber.stack.memory = static_cast<char*>(const_cast<void*>(bottom));
#endif
  __tsan_acquire(&launch_begins);
  kernel_(context_);
  __tsan_release(&launch_ends);
  current->state = State::kEnded;
  --n_living;
  Warp& warp = warps[current->id / 32];
  warp.living &= ~(1u << (current->id & 31));
  try_barrier();  // the others need not wait for a thread that has ended
  for (unsigned id = current->id & ~31u; id < fibers.size() && id <= (current->id | 31u); ++id)
    if (fibers[id].state == State::kInWarpCall) try_warp_call(warp, fibers[id]);
  switch_to(&main_fiber, true);
}

void prepare(Fiber& fiber, unsigned id, const Stack& stack) {
  fiber.id = id;
  fiber.thread = dim3(id % blockDim.x, id / blockDim.x % blockDim.y, id / (blockDim.x * blockDim.y));
  fiber.stack = stack;
  // What emulator_switch_stack takes from a new stack: six registers, where to go on, and a word that aligns it.
  void** top = reinterpret_cast<void**>(stack.memory + stack.n_bytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(fiber_main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
}

template <class T>
void shuffle_order(std::vector<T>& items, unsigned& random) {
  if (!random) return;
  for (size_t i = items.size(); i > 1; --i) {
    random = random * 1664525u + 1013904223u;
    std::swap(items[i - 1], items[(random >> 8) % i]);
  }
}

// Flushes denormals on this thread for as long as it lives.
struct Flushing {
  static constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZeros = 0x40;
  const unsigned before = _mm_getcsr();
  explicit Flushing(bool wanted) {
    if (wanted) _mm_setcsr(before | kFlushToZero | kDenormalsAreZeros);
  }
  ~Flushing() { _mm_setcsr(before); }
};

void run_block(unsigned n_threads, unsigned& random) {
  unseen([&] {
    fibers.assign(n_threads, Fiber{});
    warps.assign((n_threads + 31) / 32, Warp{});
  });
  n_living = n_threads;
  n_at_barrier = 0;
  block_episode = ++n_episodes;
  for (Warp& warp : warps) warp.episode = ++n_episodes;
  std::vector<unsigned> order(n_threads);
  for (unsigned id = 0; id < n_threads; ++id) {
    prepare(fibers[id], id, stacks[n_blocks_run % kFiberSets * n_threads + id]);
    warps[id / 32].living |= 1u << (id & 31);
    order[id] = id;
  }
  ++n_blocks_run;
  shuffle_order(order, random);
  if (dynamic_bytes) dynamic_memory = filled(dynamic_bytes);
  while (n_living && !*failure) {
    bool any_ran = false;
    for (unsigned id : order)
      while (fibers[id].state == State::kReady && !*failure) {
        any_ran = true;
        switch_to(&fibers[id]);
      }
    if (any_ran || *failure) continue;
    for (const Fiber& fiber : fibers)
      if (fiber.state != State::kEnded) {
        const char* call = fiber.state == State::kAtBarrier ? "__syncthreads" : fiber.call;
        fail("deadlock: thread %u waits in %s; %u of %u living threads wait in __syncthreads", fiber.id, call,
             n_at_barrier, n_living);
        break;
      }
  }
  unseen([&] {
    for (SharedPiece& piece : static_pieces) free(piece.memory);
    static_pieces.clear();
    free(dynamic_memory);
  });
  static_bytes = 0;
  dynamic_memory = nullptr;
}

}  // namespace

const Lane* meet_warp(unsigned mask, const Lane& given, const char* call, bool orders_memory) {
  Fiber& fiber = *current;
  Warp& warp = warps[fiber.id / 32];
  const unsigned me = 1u << (fiber.id & 31);
  void* episode = object_of(warp.episode);
  if (!(mask & me)) fail("thread %u calls %s with a mask %08x without itself", fiber.id, call, mask);
  fiber.given = given;
  fiber.mask = mask;
  fiber.call = call;
  fiber.state = State::kInWarpCall;
  warp.waiting |= me;
  if (orders_memory) __tsan_release(episode);
  try_warp_call(warp, fiber);
  switch_to(&main_fiber);
  if (orders_memory) __tsan_acquire(episode);
  return warp.given;
}

bool took_part(int lane) {
  return lane >= 0 && lane < 32 && (warps[current->id / 32].took_part[current->id & 31] >> lane & 1);
}

unsigned lane_of_thread() { return current->id & 31; }

void meet_block() {
  void* episode = object_of(block_episode);
  current->state = State::kAtBarrier;
  ++n_at_barrier;
  __tsan_release(episode);
  try_barrier();
  switch_to(&main_fiber);
  __tsan_acquire(episode);
}

void* static_shared(const void* declaration, size_t n_bytes) {
  for (const SharedPiece& piece : static_pieces)
    if (piece.declaration == declaration) return piece.memory;
  static_bytes += n_bytes;
  if (static_bytes + dynamic_bytes > kSharedBytes)
    fail("%zu bytes of static and %zu of dynamic shared memory", static_bytes, dynamic_bytes);
  void* memory = filled(n_bytes);
  unseen([&] { static_pieces.push_back({declaration, memory}); });
  return memory;
}

void* dynamic_shared() {
  if (!dynamic_memory) fail("dynamic shared memory is used, but the launch gave none");
  return dynamic_memory;
}

const char* run(dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(void*), void* context) {
  *failure = 0;
  blockIdx = dim3(0, 0, 0);
  const unsigned n_threads = block.x * block.y * block.z;
  const bool fits = grid.x && grid.y && grid.z && grid.y <= 65535 && grid.z <= 65535 && n_threads;
  if (!fits || n_threads > kMostThreads || shared_bytes > kSharedBytes) {
    fail("no GPU takes a grid of %u,%u,%u, %u threads a block, %zu bytes of shared memory", grid.x, grid.y, grid.z,
         n_threads, shared_bytes);
    return failure;
  }
  while (stacks.size() < n_threads * kFiberSets) {
    void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) abort();
    Stack stack{static_cast<char*>(memory), kStackBytes, nullptr};
#ifdef EMULATOR_TSAN
    stack.tsan_fiber = __tsan_create_fiber(0);
#endif
    stacks.push_back(stack);
  }
#ifdef EMULATOR_TSAN
  main_fiber.stack.tsan_fiber = __tsan_get_current_fiber();
#endif
  gridDim = grid;
  blockDim = block;
  kernel_ = kernel;
  context_ = context;
  dynamic_bytes = shared_bytes;
  const char* seed = getenv("EMU_SEED");
  unsigned random = seed ? static_cast<unsigned>(atoi(seed)) : 0;
  const char* flush = getenv("EMU_FLUSH");
  const Flushing flushing(!flush || strcmp(flush, "0"));
  std::vector<dim3> blocks;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) blocks.push_back(dim3(x, y, z));
  shuffle_order(blocks, random);
  __tsan_release(&launch_begins);
  for (const dim3& place : blocks) {
    blockIdx = place;
    run_block(n_threads, random);
    if (*failure) return failure;
  }
  __tsan_acquire(&launch_ends);
  return nullptr;
}

}  // namespace emulator
