// Boxes of packed masks: cell (r, c) of H × W is bit r · W + c of a row of `rows.cuh`, padding zero.

__device__ __forceinline__ int warp_min(int value) {
#pragma unroll
  for (int bits = 16; bits; bits /= 2) value = min(value, __shfl_xor_sync(ALL_LANES, value, bits));
  return value;
}

// masks u64[n_masks, ceil(height · width / 64)] -> boxes int[n_masks, 4], half-open (row0, col0, row1, col1); zeros for
// an empty mask.
// Bytes: 8 a word. Operations: a comparison a word; about 20 for each image row that a word with ones touches.
KERNEL void bounding_boxes(const u64* __restrict__ masks, int* __restrict__ boxes, i64 n_masks, i64 height,
                           i64 width) {
  const i64 n_words = ceil_div(height * width, 64);
  const int lane = lane_id();
  for (i64 task = first_task(); task < n_masks; task += task_step()) {
    const u64* mask = masks + task * n_words;
    const bool pairs = holds_pairs(mask);
    // Ends are kept as negatives of the last row and column, so that every bound is a minimum.
    int row0 = 0x7fffffff, col0 = 0x7fffffff, row1 = 0x7fffffff, col1 = 0x7fffffff;
    for (i64 at = 2 * lane; at < n_words; at += 64) {
      const ulonglong2 pair = load_pair(mask, at, n_words, pairs);
      for (int i = 0; i < 2; ++i) {
        const i64 first = (at + i) * 64;  // the cell of bit 0
        u64 ones = i ? pair.y : pair.x;
        while (ones) {
          const i64 cell = first + __ffsll(static_cast<i64>(ones)) - 1, row = cell / width;
          const i64 n_left = (row + 1) * width - first;  // bits up to the end of the image row
          const u64 in_row = n_left < 64 ? ones & ((u64{1} << n_left) - 1) : ones;
          const i64 last = first + 63 - __clzll(static_cast<i64>(in_row));
          row0 = min(row0, static_cast<int>(row));
          col0 = min(col0, static_cast<int>(cell - row * width));
          row1 = min(row1, static_cast<int>(-row));
          col1 = min(col1, static_cast<int>(row * width - last));
          ones ^= in_row;
        }
      }
    }
    row0 = warp_min(row0), col0 = warp_min(col0), row1 = warp_min(row1), col1 = warp_min(col1);
    const bool empty = row0 == 0x7fffffff;
    if (lane == 0) {
      boxes[task * 4] = empty ? 0 : row0;
      boxes[task * 4 + 1] = empty ? 0 : col0;
      boxes[task * 4 + 2] = empty ? 0 : 1 - row1;
      boxes[task * 4 + 3] = empty ? 0 : 1 - col1;
    }
  }
}
