// What all kernels share. Every family is compiled as this text followed by its own, by NVRTC, by nvcc and, in tests,
// by a C++ compiler behind tests/support/cuda_emulator/emulator.h. So no file includes another: NVRTC has no headers.
//
// Contract of every kernel: any one-dimensional grid, blocks of any multiple of 32 threads; a grid or block of another
// size changes the time, never the result. Sizes and positions are 64 bits wide: widen first, then multiply.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef CCX_EMULATED
#define KERNEL extern "C" __global__
#define SHARED(T, name, N) __shared__ T name[N]
#define DYNAMIC_SHARED(T, name) extern __shared__ __align__(16) T name[]

// Floats as IEEE 754 has them. CuPy compiles with -ftz=true, whatever options it is given, and then C++ takes denormals
// for zeros. So kernels compute with these instructions of PTX, which no option changes or fuses, and compare keys.
__device__ __forceinline__ float ieee_mul(float a, float b) {
  float product;
  asm("mul.rn.f32 %0, %1, %2;" : "=f"(product) : "f"(a), "f"(b));
  return product;
}
__device__ __forceinline__ float ieee_add(float a, float b) {
  float sum;
  asm("add.rn.f32 %0, %1, %2;" : "=f"(sum) : "f"(a), "f"(b));
  return sum;
}
__device__ __forceinline__ float ieee_float(double value) {
  float nearest;
  asm("cvt.rn.f32.f64 %0, %1;" : "=f"(nearest) : "d"(value));
  return nearest;
}
#endif

// Ascending as the floats are: -1 for -0, 0 for 0; NaN lies beyond both infinities.
__device__ __forceinline__ int key_of(float value) {
  const int bits = __float_as_int(value);
  return bits ^ (bits >> 31 & 0x7fffffff);
}

#define ALL_LANES 0xffffffffu

__device__ __forceinline__ i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }

__device__ __forceinline__ int lane_id() { return threadIdx.x % 32; }

// Warps share out tasks: for (i64 task = first_task(); task < n_tasks; task += task_step()).
__device__ __forceinline__ i64 first_task() { return (i64{blockIdx.x} * blockDim.x + threadIdx.x) / 32; }
__device__ __forceinline__ i64 task_step() { return i64{gridDim.x} * blockDim.x / 32; }

// The sum over the warp, in lane 0.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) value += __shfl_down_sync(ALL_LANES, value, distance);
  return value;
}

__device__ __forceinline__ bool holds_pairs(const u64* words) { return reinterpret_cast<u64>(words) % 16 == 0; }

// Words `at` and `at + 1` of a row that ends before `end`, zero behind it: one 128-bit load where `pairs` says that
// the row starts on 16 bytes (`at` is even).
__device__ __forceinline__ ulonglong2 load_pair(const u64* row, i64 at, i64 end, bool pairs) {
  if (pairs && at + 1 < end) return *reinterpret_cast<const ulonglong2*>(row + at);
  ulonglong2 pair;
  pair.x = at < end ? row[at] : 0;
  pair.y = at + 1 < end ? row[at + 1] : 0;
  return pair;
}

constexpr int kOr = 0, kAnd = 1, kAndNot = 2;
