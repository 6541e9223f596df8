// The part of CUDA C++ that the kernels of ccx use, for a C++17 compiler on the CPU. A kernel file is compiled behind
// this header, unchanged; `emulator.cpp` runs it. Test code only: it is written to find mistakes, not to be fast.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define CCX_EMULATED 1

// ---- The language -------------------------------------------------------------------------------------------------

#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) ulonglong2 { unsigned long long x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

// ---- What the runtime offers --------------------------------------------------------------------------------------

namespace emulator {

struct Lane { uint64_t bytes[4]; };  // what a lane hands to the others in a warp call

// Waits until every living lane of `mask` has come, and returns what all 32 lanes gave; `orders_memory` says whether
// the call is a barrier for memory too (only __syncwarp is).
const Lane* meet_warp(unsigned mask, const Lane& given, const char* call, bool orders_memory);
bool took_part(int lane);  // in the last warp call of this thread
void meet_block();
unsigned lane_of_thread();
void* static_shared(const void* declaration, size_t n_bytes);  // one piece a block and declaration, filled with 0xCD
void* dynamic_shared();
// Runs a kernel; returns nullptr, or what went wrong.
const char* run(dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(void* context), void* context);

template <class T>
Lane to_lane(T value) {
  static_assert(sizeof(T) <= sizeof(Lane), "a lane hands over 32 bytes at most");
  Lane lane{};
  std::memcpy(&lane, &value, sizeof value);
  return lane;
}

template <class T>
T from_lane(const Lane& lane) {
  T value;
  std::memcpy(&value, &lane, sizeof value);
  return value;
}

template <class T>
T shuffle(unsigned mask, T value, int source, const char* call) {
  const Lane* lanes = meet_warp(mask, to_lane(value), call, false);
  if (took_part(source)) return from_lane<T>(lanes[source]);
  T rubbish;  // a GPU returns an undefined value
  std::memset(&rubbish, 0xCD, sizeof rubbish);
  return rubbish;
}

template <class T, class Operation>
T reduce(unsigned mask, T value, const char* call, Operation operation) {
  const Lane* lanes = meet_warp(mask, to_lane(value), call, false);
  bool first = true;
  T result{};
  for (int lane = 0; lane < 32; ++lane)
    if (took_part(lane)) {
      const T given = from_lane<T>(lanes[lane]);
      result = first ? given : operation(result, given);
      first = false;
    }
  return result;
}

// A lambda's type is unique, so each SHARED in the source has a key of its own.
template <class T, int N, class Declaration>
T (&shared_array(Declaration))[N] {
  static char key;
  return *static_cast<T(*)[N]>(static_shared(&key, sizeof(T) * N));
}

// Call a kernel with the pointers to its arguments, as cuLaunchKernel does.
template <class... Parameters>
struct Call {
  void (*kernel)(Parameters...);
  void** arguments;

  template <size_t... I>
  void apply(std::index_sequence<I...>) { kernel(*static_cast<std::remove_reference_t<Parameters>*>(arguments[I])...); }
  static void in_thread(void* call) { static_cast<Call*>(call)->apply(std::index_sequence_for<Parameters...>{}); }
};

template <class... Parameters>
const char* launch(void (*kernel)(Parameters...), const unsigned* grid, const unsigned* block, size_t shared, void** arguments) {
  Call<Parameters...> call{kernel, arguments};
  return run(dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), shared, call.in_thread, &call);
}

// Bytes of parameter `i`, negative for a pointer; 0 behind the last.
template <class... Parameters>
int parameter(void (*)(Parameters...), int i) {
  const int sizes[] = {(std::is_pointer_v<Parameters> ? -8 : static_cast<int>(sizeof(Parameters)))..., 0};
  return sizes[i];
}

}  // namespace emulator

#define KERNEL extern "C"
#define SHARED(T, name, N) T(&name)[N] = emulator::shared_array<T, N>([] {})
#define DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(emulator::dynamic_shared())
#define EMULATOR_EXPORT(kernel)                                                                                 \
  extern "C" const char* launch_##kernel(const unsigned* grid, const unsigned* block, size_t shared, void** args) { \
    return emulator::launch(kernel, grid, block, shared, args);                                                 \
  }                                                                                                             \
  extern "C" int parameter_##kernel(int i) { return emulator::parameter(kernel, i); }

// ---- CUDA's functions ---------------------------------------------------------------------------------------------

inline void __syncthreads() { emulator::meet_block(); }
inline void __syncwarp(unsigned mask = ~0u) { emulator::meet_warp(mask, emulator::Lane{}, "__syncwarp", true); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  return emulator::shuffle(mask, value, source & 31, "__shfl_sync");
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance) {
  const int lane = emulator::lane_of_thread(), source = lane + static_cast<int>(distance);
  return emulator::shuffle(mask, value, source < 32 ? source : lane, "__shfl_down_sync");
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance) {
  const int lane = emulator::lane_of_thread(), source = lane - static_cast<int>(distance);
  return emulator::shuffle(mask, value, source >= 0 ? source : lane, "__shfl_up_sync");
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return emulator::shuffle(mask, value, static_cast<int>(emulator::lane_of_thread()) ^ bits, "__shfl_xor_sync");
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const unsigned mine = predicate ? 1u << emulator::lane_of_thread() : 0u;
  return emulator::reduce(mask, mine, "__ballot_sync", [](unsigned a, unsigned b) { return a | b; });
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  return emulator::reduce(mask, value, "__reduce_add_sync", [](unsigned a, unsigned b) { return a + b; });
}
inline int __reduce_min_sync(unsigned mask, int value) {
  return emulator::reduce(mask, value, "__reduce_min_sync", [](int a, int b) { return std::min(a, b); });
}
inline int __reduce_max_sync(unsigned mask, int value) {
  return emulator::reduce(mask, value, "__reduce_max_sync", [](int a, int b) { return std::max(a, b); });
}

inline int __popc(unsigned word) { return __builtin_popcount(word); }
inline int __popcll(unsigned long long word) { return __builtin_popcountll(word); }
inline int __clzll(long long word) { return word ? __builtin_clzll(static_cast<unsigned long long>(word)) : 64; }
inline int __ffsll(long long word) { return __builtin_ffsll(word); }
using std::max;
using std::min;

inline int __float_as_int(float value) {
  int bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// The instructions of PTX in common.cuh: they do not flush, though all else does while a kernel runs. Each goes by
// MXCSR as a process starts with, in one piece, as compilers move floating-point operations past what sets it.
#define EMULATOR_IEEE(instruction, result, operand)                                                              \
  unsigned kept;                                                                                                 \
  const unsigned usual = 0x1f80;                                                                                 \
  asm("stmxcsr %1\n ldmxcsr %2\n " instruction " %3, %0\n ldmxcsr %1"                                           \
      : "+x"(result), "=&m"(kept)                                                                                \
      : "m"(usual), "x"(operand))
inline float ieee_mul(float a, float b) {
  EMULATOR_IEEE("mulss", a, b);
  return a;
}
inline float ieee_add(float a, float b) {
  EMULATOR_IEEE("addss", a, b);
  return a;
}
inline float ieee_float(double value) {
  float nearest = 0;
  EMULATOR_IEEE("cvtsd2ss", nearest, value);
  return nearest;
}

#define EMULATOR_ATOMIC(name, new_value)                                                                        \
  template <class T>                                                                                            \
  T name(T* address, std::common_type_t<T> value) {                                                             \
    T old = __atomic_load_n(address, __ATOMIC_RELAXED);                                                         \
    while (!__atomic_compare_exchange_n(address, &old, static_cast<T>(new_value), false, __ATOMIC_RELAXED,      \
                                        __ATOMIC_RELAXED)) {                                                    \
    }                                                                                                           \
    return old;                                                                                                 \
  }
EMULATOR_ATOMIC(atomicAdd, old + value)
EMULATOR_ATOMIC(atomicMin, value < old ? value : old)
EMULATOR_ATOMIC(atomicMax, value > old ? value : old)
EMULATOR_ATOMIC(atomicOr, old | value)
EMULATOR_ATOMIC(atomicAnd, old & value)
EMULATOR_ATOMIC(atomicExch, value)
template <class T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
