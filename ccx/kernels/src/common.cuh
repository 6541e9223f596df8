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

// Below and above every value.
constexpr i64 kNever = -(i64{1} << 62), kHighest = 0x7fffffffffffffff;

// The greatest of all lanes, in all lanes.
__device__ __forceinline__ i64 warp_most(i64 value) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) value = max(value, __shfl_xor_sync(ALL_LANES, value, distance));
  return value;
}

struct Largest { i64 value, at; };

// The greatest value_of(j) of start <= j < end that comes after `before` in descending order, the first of equals first;
// at = -1 where all that are left are `lowest` or less.
template <class Values>
__device__ __forceinline__ Largest next_most(Largest before, i64 lowest, i64 start, i64 end, const Values& value_of) {
  Largest mine = {lowest, -1};
  for (i64 j = start + lane_id(); j < end; j += 32) {
    const i64 value = value_of(j);
    if (value > mine.value && (value < before.value || (value == before.value && j > before.at))) mine = {value, j};
  }
  const i64 most = warp_most(mine.value);
  const i64 first = -warp_most(mine.value == most && mine.at >= 0 ? -mine.at : -kHighest);
  return {most, first == kHighest ? -1 : first};
}

struct Top { i64 sum, least; };  // of the k greatest, and the last of these

// What the k greatest values add up to; 0 stands for what is negative or lacks.
template <class Values>
__device__ __forceinline__ Top top_of(i64 k, i64 start, i64 end, const Values& value_of) {
  Largest last = {kHighest, -1};
  Top top = {0, 0};
  for (i64 i = 0; i < k; ++i) {
    last = next_most(last, 0, start, end, value_of);
    top.sum += last.value;
    top.least = last.value;
    if (last.at < 0) break;
  }
  return top;
}

// The k greatest of one thread, descending, in memory; zeros at first.
struct Kept {
  i64* values;
  i64 stride, k;

  __device__ __forceinline__ i64& at(i64 i) const { return values[i * stride]; }
  __device__ __forceinline__ void clear() const {
    for (i64 i = 0; i < k; ++i) at(i) = 0;
  }
  __device__ __forceinline__ void let_in(i64 value) const {
    i64 i = k - 1;
    if (value <= at(i)) return;
    for (; i > 0 && at(i - 1) < value; --i) at(i) = at(i - 1);
    at(i) = value;
  }
};

// Lists of entries (row, column, operator) that pass the test of a table, in this order, whatever order warps run in: a
// warp counts the entries of a row, the host adds the counts up, and a warp writes the entries from the row's start on.

// The operators that pass, a bit each.
template <class Table>
__device__ __forceinline__ u32 operators_of(const Table& table, i64 row, i64 column) {
  u32 operators = 0;
#pragma unroll
  for (int op = 0; op < 3; ++op) operators |= u32{table.passes(row, column, op)} << op;
  return operators;
}

template <class Table>
__device__ __forceinline__ void count_entries(const Table& table, i64* counts) {
  for (i64 row = first_task(); row < table.n_rows; row += task_step()) {
    u32 n_found = 0;
    for (i64 column = lane_id(); column < table.n; column += 32) n_found += __popc(operators_of(table, row, column));
    n_found = warp_sum(n_found);
    if (lane_id() == 0) counts[row] = n_found;
  }
}

template <class Table>
__device__ __forceinline__ void list_entries(const Table& table, const i64* starts) {
  const u32 lanes_before = (1u << lane_id()) - 1;
  for (i64 row = first_task(); row < table.n_rows; row += task_step()) {
    i64 start = starts[row];
    for (i64 first = 0; first < table.n; first += 32) {
      const i64 column = first + lane_id();
      const u32 operators = column < table.n ? operators_of(table, row, column) : 0;
      i64 at = start;
#pragma unroll
      for (int op = 0; op < 3; ++op) {
        const u32 lanes = __ballot_sync(ALL_LANES, operators >> op & 1);
        at += __popc(lanes & lanes_before);
        start += __popc(lanes);
      }
#pragma unroll
      for (int op = 0; op < 3; ++op)
        if (operators >> op & 1) table.write(at++, row, column, op);
    }
  }
}
