// Boxes and rectangles of packed masks: cell (r, c) of H × W is bit r · W + c of a row of `rows.cuh`, padding zero.
// ccx/kernels/shapes.py says what each result means.

// The minimum over the warp, in every lane.
template <class T>
__device__ __forceinline__ T warp_min(T value) {
#pragma unroll
  for (int bits = 16; bits; bits /= 2) value = min(value, __shfl_xor_sync(ALL_LANES, value, bits));
  return value;
}

// masks u64[n_masks, ceil(height · width / 64)] -> boxes int[n_masks, 4], half-open (row0, col0, row1, col1); zeros for
// an empty mask.
// Bytes: 8 per word. Operations: a comparison per word; about 20 for each image row that a word with ones touches.
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

__device__ __forceinline__ bool is_one(const u64* mask, i64 cell) { return mask[cell >> 6] >> (cell & 63) & 1; }

// In place of the row where a column of ones begins: the cell is zero.
constexpr int kNoTop = 0x7fffffff;

// masks as above, no side of the grid 0 -> rectangles int[n_masks, 4], half-open; zeros for an empty mask.
// A warp takes a mask row by row, a lane the columns of its number modulo 32, and keeps in shared memory where the
// column of ones above each cell begins. Every cell of a row then looks left and right for the rectangle that it
// proposes, with three short cuts that do not change the result:
// - A rectangle that goes on in the next row is smaller than its continuation: a row without an *end*, a cell above a
//   zero, proposes nothing that counts.
// - Neighbours whose columns begin in the same row propose the same; the first does it for both.
// - A proposal is no wider than the grid.
// Dynamic shared memory: 4 · n_slots bytes, n_slots >= width; as many warps work as have room for their columns.
// Bytes: 8 per word. Operations: about 20 per cell; in a row with an end, one comparison for each column that a proposal
// looks at.
KERNEL void inscribed_rectangles(const u64* __restrict__ masks, int* __restrict__ rectangles, i64 n_masks, int height,
                                 int width, int n_slots) {
  DYNAMIC_SHARED(int, table);
  const int n_warps = min(static_cast<int>(blockDim.x) / 32, n_slots / width);
  const int warp = threadIdx.x / 32, lane = lane_id();
  if (warp >= n_warps) return;
  int* tops = table + warp * width;
  const i64 n_words = ceil_div(i64{height} * width, 64);
  for (i64 task = i64{blockIdx.x} * n_warps + warp; task < n_masks; task += i64{gridDim.x} * n_warps) {
    const u64* mask = masks + task * n_words;
    for (int col = lane; col < width; col += 32) tops[col] = kNoTop;
    // The first largest proposal of this lane, the cell that made it, and the largest of all lanes in the rows before.
    i64 area = 0, cell = -1, least = 0;
    int top = 0, left = 0, bottom = 0, right = 0;
    for (int row = 0; row < height; ++row) {
      const i64 first = i64{row} * width;
      bool has_end = false;
      for (int col = lane; col < width; col += 32) {
        const bool one = is_one(mask, first + col);
        if (!one)
          tops[col] = kNoTop;
        else if (tops[col] == kNoTop)
          tops[col] = row;
        has_end |= one && (row + 1 == height || !is_one(mask, first + width + col));
      }
      if (!__any_sync(ALL_LANES, has_end)) continue;
      __syncwarp();
      for (int col = lane; col < width; col += 32) {
        const int here = tops[col];
        if (here == kNoTop || (col && tops[col - 1] == here)) continue;
        const i64 rows = row + 1 - here;
        if (rows * width <= least) continue;
        int from = col, to = col + 1;
        while (from && tops[from - 1] <= here) --from;
        while (to < width && tops[to] <= here) ++to;
        if (rows * (to - from) > max(area, least)) {
          area = rows * (to - from), cell = first + col;
          top = here, left = from, bottom = row + 1, right = to;
        }
      }
      least = -warp_min(-area);
      __syncwarp();  // before the columns change
    }
    const i64 first_cell = warp_min(area == least ? cell : 0x7fffffffffffffff);
    if (least ? cell == first_cell : lane == 0) {
      rectangles[task * 4] = top;
      rectangles[task * 4 + 1] = left;
      rectangles[task * 4 + 2] = bottom;
      rectangles[task * 4 + 3] = right;
    }
  }
}
