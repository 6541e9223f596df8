// Activations spread over the grid by bilinear interpolation, and what is packed or counted in the same pass.
// ccx/kernels/activations.py says what each result means, and why the order of operations is fixed.

// The h × w source and the height × width cells. Position i is cell row i, or cell column i - height: the cell lies
// between samples near[i] and far[i] of its axis, with these weights, of which none is 0: a cell on a sample lies between
// that and the same, which weighs so little that the sum rounds to it, even to infinity. Fewer than 2^31 of both.
struct Grid {
  const int *near, *far;
  const float *w_near, *w_far;
  int source_height, source_width, height, width;
};

// positions int[2, height + width] (near, far), weights f32[2, height + width] (near, far)
__device__ __forceinline__ Grid grid_of(const int* positions, const float* weights, int source_height,
                                        int source_width, int height, int width) {
  const i64 n = i64{height} + width;
  return {positions, positions + n, weights, weights + n, source_height, source_width, height, width};
}

// A cell between its four samples, as offsets into a map.
struct Cell {
  u32 upper_left, upper_right, lower_left, lower_right;
  float w_upper, w_lower, w_left, w_right;
};

__device__ __forceinline__ Cell cell_at(const Grid& grid, int row, int column) {
  const u32 upper = grid.near[row] * grid.source_width, lower = grid.far[row] * grid.source_width;
  const u32 x = grid.height + column, left = grid.near[x], right = grid.far[x];
  return {upper + left,     upper + right,   lower + left,   lower + right,
          grid.w_near[row], grid.w_far[row], grid.w_near[x], grid.w_far[x]};
}

// Horizontal, then vertical; each product and sum is rounded, none is fused.
__device__ __forceinline__ float mean(float a, float weight_a, float b, float weight_b) {
  return ieee_add(ieee_mul(a, weight_a), ieee_mul(b, weight_b));
}

// An open range: the key of the least float in it, and how many keys it holds. -0 and 0 are both in it, or neither.
struct alignas(8) Range {
  int start;
  u32 n_keys;

  __device__ __forceinline__ bool contains(int key) const { return static_cast<u32>(key) - start < n_keys; }
};

__device__ __forceinline__ float value_of(const float* map, const Cell& cell) {
  const float upper = mean(map[cell.upper_left], cell.w_left, map[cell.upper_right], cell.w_right);
  const float lower = mean(map[cell.lower_left], cell.w_left, map[cell.lower_right], cell.w_right);
  return mean(upper, cell.w_upper, lower, cell.w_lower);
}

// maps f32[n_maps, source_height, source_width] -> out f32[n_maps, height, width].
// Bytes: 4 per sample and 4 per cell. Operations: 9 floating-point ones and 4 cached loads per cell.
KERNEL void upsample(const float* __restrict__ maps, float* __restrict__ out, const int* __restrict__ positions,
                     const float* __restrict__ weights, i64 n_maps, int source_height, int source_width, int height,
                     int width) {
  const Grid grid = grid_of(positions, weights, source_height, source_width, height, width);
  for (i64 task = first_task(); task < n_maps * height; task += task_step()) {
    const int row = static_cast<int>(task % height);
    const float* map = maps + task / height * source_height * source_width;
    for (int column = lane_id(); column < width; column += 32)
      out[task * width + column] = value_of(map, cell_at(grid, row, column));
  }
}

// maps f32[n_maps, source_height, source_width] -> out u64[n_maps, ceil(height · width / 64)]: cells in the range.
// Bytes: 4 per sample and 1/8 per cell. Operations: as `upsample`, two comparisons per cell and a ballot for 32.
KERNEL void upsample_pack(const float* __restrict__ maps, u64* __restrict__ out, const int* __restrict__ positions,
                          const float* __restrict__ weights, i64 n_maps, int source_height, int source_width,
                          int height, int width, int start, u32 n_keys) {
  const Range range = {start, n_keys};
  const Grid grid = grid_of(positions, weights, source_height, source_width, height, width);
  const i64 n_cells = i64{height} * width, n_words = ceil_div(n_cells, 64);
  for (i64 task = first_task(); task < n_maps * n_words; task += task_step()) {
    const float* map = maps + task / n_words * source_height * source_width;
    u64 word = 0;
    for (int half = 0; half < 2; ++half) {
      const i64 cell = task % n_words * 64 + half * 32 + lane_id();
      bool inside = false;
      if (cell < n_cells) {
        const u32 row = static_cast<u32>(cell) / width;
        const float value = value_of(map, cell_at(grid, row, static_cast<u32>(cell) - row * width));
        inside = range.contains(key_of(value));
      }
      word |= u64{__ballot_sync(ALL_LANES, inside)} << half * 32;
    }
    if (lane_id() == 0) out[task] = word;
  }
}

// Counts in shared memory, or, where a sample's atoms do not fit there, straight in global memory. A block takes a
// sample and up to `units_a_task` units at a time, so that the atom of a cell is read once for all of them.
template <class LocalAtom>
__device__ __forceinline__ void count_ranges(const float* maps, const Range* limits, const LocalAtom* cell_atoms,
                                             const i64* sample_starts, const int* sample_atoms, u64* counts,
                                             const Grid& grid, i64 n_samples, i64 n_units, int n_ranges, i64 n_atoms,
                                             i64 units_a_task, i64 n_slots) {
  DYNAMIC_SHARED(u32, table);
  const i64 n_cells = i64{grid.height} * grid.width, map_size = i64{grid.source_height} * grid.source_width;
  const i64 tasks_a_sample = ceil_div(n_units, units_a_task);
  for (i64 task = blockIdx.x; task < n_samples * tasks_a_sample; task += gridDim.x) {
    const i64 sample = task / tasks_a_sample, entries = sample_starts[sample];
    const i64 n_local = sample_starts[sample + 1] - entries, slots_a_unit = n_local * n_ranges;
    const i64 end = min(n_units, (task % tasks_a_sample + 1) * units_a_task);
    const bool fits = slots_a_unit <= n_slots;
    const i64 units_a_pass = fits && slots_a_unit ? min(units_a_task, n_slots / slots_a_unit) : units_a_task;
    for (i64 first = task % tasks_a_sample * units_a_task; first < end; first += units_a_pass) {
      const i64 last = min(end, first + units_a_pass), n_used = fits ? (last - first) * slots_a_unit : 0;
      for (i64 slot = threadIdx.x; slot < n_used; slot += blockDim.x) table[slot] = 0;
      __syncthreads();
      for (u32 i = threadIdx.x; i < n_cells; i += blockDim.x) {
        const u32 local = cell_atoms[sample * n_cells + i];
        if (local >= n_local) continue;  // a cell that is not valid
        const u32 row = i / grid.width;
        const Cell cell = cell_at(grid, row, i - row * grid.width);
        // What a unit moves on by is added, not multiplied: this is where the time goes.
        const float* map = maps + (sample * n_units + first) * map_size;
        const Range* limit = limits + first * n_ranges;
        u32* slots = table + local * n_ranges;
        for (i64 unit = first; unit < last; ++unit, map += map_size, slots += slots_a_unit) {
          const int key = key_of(value_of(map, cell));  // once for all ranges
#pragma unroll 1  // unrolled, few ranges cost more instructions than they save
          for (int k = 0; k < n_ranges; ++k, ++limit) {
            const Range range = *limit;
            if (!range.contains(key)) continue;
            if (fits)
              atomicAdd(slots + k, 1u);
            else
              atomicAdd(counts + (unit * n_ranges + k) * n_atoms + sample_atoms[entries + local], u64{1});
          }
        }
      }
      __syncthreads();
      for (i64 slot = threadIdx.x; slot < n_used; slot += blockDim.x) {
        const i64 unit = first + slot / slots_a_unit, local = slot % slots_a_unit / n_ranges, k = slot % n_ranges;
        u64* count = counts + (unit * n_ranges + k) * n_atoms + sample_atoms[entries + local];
        if (table[slot]) atomicAdd(count, u64{table[slot]});
      }
      // No barrier: the thread that read a slot is the one that clears it next.
    }
  }
}

// maps f32[n_samples, n_units, source_height, source_width], limits Range[n_units, n_ranges],
// cell_atoms u16 or u32[n_samples, height · width], sample_starts i64[n_samples + 1], sample_atoms int[n_entries]
// -> added to counts u64[n_units, n_ranges, n_atoms], which start as zeros.
// Dynamic shared memory: 4 · n_slots bytes.
// Bytes: 4 per sample of a map; the atoms of all cells once for units_a_task units. Operations for a cell and unit: 9
// floating-point ones, 4 cached loads, 2 · n_ranges comparisons, an atomic addition in shared memory for a range.
KERNEL void range_histogram_u16(const float* __restrict__ maps, const Range* __restrict__ limits,
                   const u16* __restrict__ cell_atoms, const i64* __restrict__ sample_starts,
                   const int* __restrict__ sample_atoms, u64* __restrict__ counts,
                   const int* __restrict__ positions, const float* __restrict__ weights, i64 n_samples,
                   i64 n_units, i64 n_ranges, i64 n_atoms, i64 units_a_task, i64 n_slots, int source_height,
                   int source_width, int height, int width) {
  const Grid grid = grid_of(positions, weights, source_height, source_width, height, width);
  count_ranges(maps, limits, cell_atoms, sample_starts, sample_atoms, counts, grid, n_samples, n_units, n_ranges,
               n_atoms, units_a_task, n_slots);
}

KERNEL void range_histogram_u32(const float* __restrict__ maps, const Range* __restrict__ limits,
                   const u32* __restrict__ cell_atoms, const i64* __restrict__ sample_starts,
                   const int* __restrict__ sample_atoms, u64* __restrict__ counts,
                   const int* __restrict__ positions, const float* __restrict__ weights, i64 n_samples,
                   i64 n_units, i64 n_ranges, i64 n_atoms, i64 units_a_task, i64 n_slots, int source_height,
                   int source_width, int height, int width) {
  const Grid grid = grid_of(positions, weights, source_height, source_width, height, width);
  count_ranges(maps, limits, cell_atoms, sample_starts, sample_atoms, counts, grid, n_samples, n_units, n_ranges,
               n_atoms, units_a_task, n_slots);
}

// As `count_ranges`; a block takes a sample of a bitmap, a warp 64 cells at a time.
template <class LocalAtom>
__device__ __forceinline__ void count_bitmaps(const u64* rows, const LocalAtom* cell_atoms, const i64* sample_starts,
                                              const int* sample_atoms, u64* counts, i64 n_bitmaps, i64 n_samples,
                                              i64 n_cells, i64 n_atoms, i64 n_slots) {
  DYNAMIC_SHARED(u32, table);
  const i64 n_words = ceil_div(n_cells, 64);
  for (i64 task = blockIdx.x; task < n_samples * n_bitmaps; task += gridDim.x) {
    const i64 sample = task / n_bitmaps, bitmap = task % n_bitmaps, entries = sample_starts[sample];
    const i64 n_local = sample_starts[sample + 1] - entries, n_used = n_local <= n_slots ? n_local : 0;
    const u64* row = rows + (bitmap * n_samples + sample) * n_words;
    u64* counts_here = counts + bitmap * n_atoms;
    for (i64 slot = threadIdx.x; slot < n_used; slot += blockDim.x) table[slot] = 0;
    __syncthreads();
    for (i64 word = threadIdx.x / 32; word < n_words; word += blockDim.x / 32) {
      const u64 ones = row[word];
      for (int bit = lane_id(); bit < 64; bit += 32) {
        if (!(ones >> bit & 1)) continue;
        const i64 local = cell_atoms[sample * n_cells + word * 64 + bit];
        if (local >= n_local) continue;  // a cell that is not valid
        if (n_used)
          atomicAdd(table + local, 1u);
        else
          atomicAdd(counts_here + sample_atoms[entries + local], u64{1});
      }
    }
    __syncthreads();
    for (i64 slot = threadIdx.x; slot < n_used; slot += blockDim.x)
      if (table[slot]) atomicAdd(counts_here + sample_atoms[entries + slot], u64{table[slot]});
  }
}

// rows u64[n_bitmaps, n_samples, ceil(n_cells / 64)], padding zero; atoms as above -> added to counts
// u64[n_bitmaps, n_atoms], which start as zeros. Dynamic shared memory: 4 · n_slots bytes.
// Bytes: 1/8 per cell of a bitmap, and the atoms of all cells once for all bitmaps where they fit the cache. Operations:
// a shift and a test a cell, an atomic addition in shared memory for a one.
KERNEL void bitmap_histogram_u16(const u64* __restrict__ rows, const u16* __restrict__ cell_atoms,
                                 const i64* __restrict__ sample_starts, const int* __restrict__ sample_atoms,
                                 u64* __restrict__ counts, i64 n_bitmaps, i64 n_samples, i64 n_cells, i64 n_atoms,
                                 i64 n_slots) {
  count_bitmaps(rows, cell_atoms, sample_starts, sample_atoms, counts, n_bitmaps, n_samples, n_cells, n_atoms,
                n_slots);
}

KERNEL void bitmap_histogram_u32(const u64* __restrict__ rows, const u32* __restrict__ cell_atoms,
                                 const i64* __restrict__ sample_starts, const int* __restrict__ sample_atoms,
                                 u64* __restrict__ counts, i64 n_bitmaps, i64 n_samples, i64 n_cells, i64 n_atoms,
                                 i64 n_slots) {
  count_bitmaps(rows, cell_atoms, sample_starts, sample_atoms, counts, n_bitmaps, n_samples, n_cells, n_atoms,
                n_slots);
}

// values f32[n_values] -> any_other[0] = 1 where one is NaN or infinite; it starts as 0.
// Bytes: 4 per value. Operations: a comparison per value, a ballot for 32.
KERNEL void find_not_finite(const float* __restrict__ values, u32* any_other, i64 n_values) {
  const i64 n_tasks = ceil_div(n_values, 32);
  for (i64 task = first_task(); task < n_tasks; task += task_step()) {
    const i64 i = task * 32 + lane_id();
    const bool other = i < n_values && (__float_as_int(values[i]) & 0x7fffffff) >= 0x7f800000;
    if (__any_sync(ALL_LANES, other) && lane_id() == 0) atomicOr(any_other, 1u);
  }
}

// values f64[n_values] -> out f32[n_values], the nearest.
// Bytes: 12 per value. Operations: a conversion per value.
KERNEL void round_to_float32(const double* __restrict__ values, float* __restrict__ out, i64 n_values) {
  const i64 step = i64{gridDim.x} * blockDim.x;
  for (i64 i = i64{blockIdx.x} * blockDim.x + threadIdx.x; i < n_values; i += step) out[i] = ieee_float(values[i]);
}
