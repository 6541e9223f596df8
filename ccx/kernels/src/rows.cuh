// Packed bit rows: bit j of a row is bit j % 64 of word j / 64, and the padding of the last word is zero.
// ccx/kernels/rows.py says what each result means.
//
// Bytes are those that must cross the memory bus, operations those on 64-bit words, both for the whole call.

// A warp takes this many words of a row at a time: 64 of its loads of 128 bits per lane. Long rows are shared out.
constexpr i64 kChunkWords = 4096;

// Where the rows of a and b stand that meet in row r of a broadcast table: r counts through outer × middle × inner,
// and each of the three has a step, in rows of a and in rows of b.
struct Broadcast {
  i64 middle, inner, outer_a, middle_a, inner_a, outer_b, middle_b, inner_b;
};

__device__ __forceinline__ i64 row_in_a(const Broadcast& rows, i64 r) {
  const i64 rest = r / rows.inner;
  return rest / rows.middle * rows.outer_a + rest % rows.middle * rows.middle_a + r % rows.inner * rows.inner_a;
}

__device__ __forceinline__ i64 row_in_b(const Broadcast& rows, i64 r) {
  const i64 rest = r / rows.inner;
  return rest / rows.middle * rows.outer_b + rest % rows.middle * rows.middle_b + r % rows.inner * rows.inner_b;
}

// u8[n_rows, n_bits], any value but 0 is true -> out u64[n_rows, ceil(n_bits / 64)].
// Bytes: n_rows · (n_bits + 8·n_words). Operations: a load, a comparison and a ballot for 32 cells.
KERNEL void pack(const u8* __restrict__ bits, u64* __restrict__ out, i64 n_rows, i64 n_bits) {
  // A task is four words: eight loads a lane that do not wait for each other.
  const i64 n_words = ceil_div(n_bits, 64), tasks_a_row = ceil_div(n_words, 4);
  const int lane = lane_id();
  for (i64 task = first_task(); task < n_rows * tasks_a_row; task += task_step()) {
    const i64 row = task / tasks_a_row, first_word = task % tasks_a_row * 4;
    u64 word = 0;
#pragma unroll
    for (int half = 0; half < 8; ++half) {
      const i64 bit = first_word * 64 + half * 32 + lane;
      const u32 ones = __ballot_sync(ALL_LANES, bit < n_bits && bits[row * n_bits + bit]);
      if (lane == half / 2) word |= u64{ones} << half % 2 * 32;
    }
    if (lane < 4 && first_word + lane < n_words) out[row * n_words + first_word + lane] = word;
  }
}

// u64[n_rows, ceil(n_bits / 64)] -> out u8[n_rows, n_bits] of 0 and 1, which starts on 16 bytes.
// Bytes: n_rows · (8·n_words + n_bits). Operations: a shift and a mask per cell; stores of 128 bits.
KERNEL void unpack(const u64* __restrict__ rows, u8* __restrict__ out, i64 n_rows, i64 n_bits) {
  const i64 n_words = ceil_div(n_bits, 64), n_cells = n_rows * n_bits;
  const i64 step = i64{gridDim.x} * blockDim.x * 16;
  for (i64 first = (i64{blockIdx.x} * blockDim.x + threadIdx.x) * 16; first < n_cells; first += step) {
    i64 row = first / n_bits, bit = first % n_bits;
    const int n_here = static_cast<int>(min(i64{16}, n_cells - first));
    u64 word = rows[row * n_words + bit / 64];
    u64 bytes[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (i >= n_here) break;
      bytes[i / 8] |= (word >> bit % 64 & 1) << i % 8 * 8;
      if (++bit == n_bits) bit = 0, ++row;
      if (bit % 64 == 0 && i + 1 < n_here) word = rows[row * n_words + bit / 64];
    }
    if (n_here == 16) {
      ulonglong2 pair;
      pair.x = bytes[0];
      pair.y = bytes[1];
      *reinterpret_cast<ulonglong2*>(out + first) = pair;
    } else {
#pragma unroll
      for (int i = 0; i < 16; ++i)
        if (i < n_here) out[first + i] = static_cast<u8>(bytes[i / 8] >> i % 8 * 8);
    }
  }
}

// ((a ^ flip_a) & (b ^ flip_b)) ^ flip_out, which is AND, OR or AND NOT without a branch, of rows of n_words words
// that meet as `Broadcast` says -> out u64[n_rows, n_words], which may be a or b itself, if it has their rows.
// Bytes: 24 per word of out. Operations: two per word.
KERNEL void combine(const u64* a, const u64* b, u64* out, i64 n_rows, i64 n_words, u64 flip_a, u64 flip_b,
                    u64 flip_out, i64 middle, i64 inner, i64 outer_a, i64 middle_a, i64 inner_a, i64 outer_b,
                    i64 middle_b, i64 inner_b) {
  const Broadcast rows = {middle, inner, outer_a, middle_a, inner_a, outer_b, middle_b, inner_b};
  const i64 tasks_a_row = ceil_div(n_words, kChunkWords);
  for (i64 task = first_task(); task < n_rows * tasks_a_row; task += task_step()) {
    const i64 r = task / tasks_a_row, start = task % tasks_a_row * kChunkWords;
    const i64 end = min(n_words, start + kChunkWords);
    const u64 *row_a = a + row_in_a(rows, r) * n_words, *row_b = b + row_in_b(rows, r) * n_words;
    u64* row_out = out + r * n_words;
    const bool pairs_a = holds_pairs(row_a), pairs_b = holds_pairs(row_b), pairs_out = holds_pairs(row_out);
    for (i64 at = start + 2 * lane_id(); at < end; at += 64) {
      const ulonglong2 x = load_pair(row_a, at, end, pairs_a), y = load_pair(row_b, at, end, pairs_b);
      ulonglong2 result;
      result.x = ((x.x ^ flip_a) & (y.x ^ flip_b)) ^ flip_out;
      result.y = ((x.y ^ flip_a) & (y.y ^ flip_b)) ^ flip_out;
      if (pairs_out && at + 1 < end) {
        *reinterpret_cast<ulonglong2*>(row_out + at) = result;
      } else {
        row_out[at] = result.x;
        if (at + 1 < end) row_out[at + 1] = result.y;
      }
    }
  }
}

// u64[n_rows, n_words] -> added to counts u64[n_rows], which start as zeros.
// Bytes: 8 per word. Operations: a popcount and an addition per word.
KERNEL void popcount(const u64* __restrict__ rows, u64* __restrict__ counts, i64 n_rows, i64 n_words) {
  const i64 tasks_a_row = ceil_div(n_words, kChunkWords);
  for (i64 task = first_task(); task < n_rows * tasks_a_row; task += task_step()) {
    const i64 r = task / tasks_a_row, start = task % tasks_a_row * kChunkWords;
    const i64 end = min(n_words, start + kChunkWords);
    const u64* row = rows + r * n_words;
    const bool pairs = holds_pairs(row);
    u32 ones = 0;
    for (i64 at = start + 2 * lane_id(); at < end; at += 64) {
      const ulonglong2 x = load_pair(row, at, end, pairs);
      ones += __popcll(x.x) + __popcll(x.y);
    }
    ones = warp_sum(ones);
    if (lane_id() == 0) atomicAdd(counts + r, u64{ones});
  }
}

// Rows of n_words words that meet as `Broadcast` says -> popcount(a & b) added to counts u64[n_rows], zeros before.
// Bytes: 16 per pair of words. Operations: an AND, a popcount and an addition per pair.
KERNEL void and_popcount(const u64* __restrict__ a, const u64* __restrict__ b, u64* __restrict__ counts, i64 n_rows,
                         i64 n_words, i64 middle, i64 inner, i64 outer_a, i64 middle_a, i64 inner_a, i64 outer_b,
                         i64 middle_b, i64 inner_b) {
  const Broadcast rows = {middle, inner, outer_a, middle_a, inner_a, outer_b, middle_b, inner_b};
  const i64 tasks_a_row = ceil_div(n_words, kChunkWords);
  for (i64 task = first_task(); task < n_rows * tasks_a_row; task += task_step()) {
    const i64 r = task / tasks_a_row, start = task % tasks_a_row * kChunkWords;
    const i64 end = min(n_words, start + kChunkWords);
    const u64 *row_a = a + row_in_a(rows, r) * n_words, *row_b = b + row_in_b(rows, r) * n_words;
    const bool pairs_a = holds_pairs(row_a), pairs_b = holds_pairs(row_b);
    u32 ones = 0;
    for (i64 at = start + 2 * lane_id(); at < end; at += 64) {
      const ulonglong2 x = load_pair(row_a, at, end, pairs_a), y = load_pair(row_b, at, end, pairs_b);
      ones += __popcll(x.x & y.x) + __popcll(x.y & y.y);
    }
    ones = warp_sum(ones);
    if (lane_id() == 0) atomicAdd(counts + r, u64{ones});
  }
}

// Words `at` and `at + 1` of an operand: a row of the table, or FULL, ones up to the last bit, or ABSENT, zeros.
constexpr i64 kFull = -1, kAbsent = -2;

__device__ __forceinline__ ulonglong2 operand_pair(const u64* rows, i64 operand, i64 at, i64 n_words, u64 last_word) {
  if (operand >= 0) {
    const u64* row = rows + operand * n_words;
    return load_pair(row, at, n_words, holds_pairs(row));
  }
  ulonglong2 pair;
  pair.x = operand == kFull ? (at + 1 < n_words ? ~u64{0} : last_word) : 0;
  pair.y = operand == kFull ? (at + 2 < n_words ? ~u64{0} : last_word) : 0;
  return pair;
}

// rows u64[n_rows, n_words], operands i64[length, n_out], operators u8[length - 1] (0 OR, 1 AND, 2 AND NOT), last_word:
// the bits that the last word of a row may have -> out u64[n_out, n_words]: ((row of operand 0) op row of operand 1) ...
// Bytes: 8 per word of out, and of each operand that is a row. Operations: one or two per word and operand.
KERNEL void formula_rows(const u64* __restrict__ rows, const i64* __restrict__ operands,
                         const u8* __restrict__ operators, u64* __restrict__ out, i64 n_out, i64 n_words, i64 length,
                         u64 last_word) {
  const i64 tasks_a_row = ceil_div(n_words, kChunkWords);
  for (i64 task = first_task(); task < n_out * tasks_a_row; task += task_step()) {
    const i64 r = task / tasks_a_row, start = task % tasks_a_row * kChunkWords;
    const i64 end = min(n_words, start + kChunkWords);
    u64* row_out = out + r * n_words;
    for (i64 at = start + 2 * lane_id(); at < end; at += 64) {
      ulonglong2 result = operand_pair(rows, operands[r], at, n_words, last_word);
      for (i64 j = 1; j < length; ++j) {
        const ulonglong2 other = operand_pair(rows, operands[j * n_out + r], at, n_words, last_word);
        const u8 connective = operators[j - 1];
        result.x = connective == 0 ? result.x | other.x : result.x & (connective == 1 ? other.x : ~other.x);
        result.y = connective == 0 ? result.y | other.y : result.y & (connective == 1 ? other.y : ~other.y);
      }
      row_out[at] = result.x;
      if (at + 1 < end) row_out[at + 1] = result.y;
    }
  }
}

// A block counts a tile: blockDim.x / 4 rows of a meet 64 rows of b, a thread 4 of each. It takes them into shared
// memory 16 words at a time; two words between rows keep the 128-bit loads of eight lanes from each other's banks.
constexpr int kTileWords = 16;
constexpr int kTilePitch = kTileWords + 2;
constexpr int kTileColumns = 64;

__device__ __forceinline__ void load_tile(const u64* table, i64 first_row, i64 n_rows, int tile_rows, i64 n_words,
                                          i64 start, i64 end, u64* tile) {
  for (int i = threadIdx.x; i < tile_rows * (kTileWords / 2); i += blockDim.x) {
    const int r = i / (kTileWords / 2), word = i % (kTileWords / 2) * 2;
    ulonglong2 pair;
    pair.x = pair.y = 0;
    if (first_row + r < n_rows) {
      const u64* row = table + (first_row + r) * n_words;
      pair = load_pair(row, start + word, end, holds_pairs(row));
    }
    *reinterpret_cast<ulonglong2*>(tile + r * kTilePitch + word) = pair;
  }
}

// a u64[n, n_words], b u64[m, n_words] -> popcount(a[i] & b[j]) added to counts u64[n, m], which start as zeros. Words
// are cut into slices of slice_words, a multiple of 16 and at most 2^20, so that few rows can keep many blocks busy.
// Dynamic shared memory: (blockDim.x / 4 + 64) · 144 bytes.
// Bytes: 8·n_words · (n · m / 64 + m · n · 4 / blockDim.x) from the cache; each table once from memory where the other
// fits the cache. Operations: n · m · n_words · (an AND, a popcount, an addition); popcounts are the bottleneck.
KERNEL void intersection_counts(const u64* __restrict__ a, const u64* __restrict__ b, u64* __restrict__ counts, i64 n,
                                i64 m, i64 n_words, i64 slice_words) {
  DYNAMIC_SHARED(u64, tiles);
  const int thread_rows = blockDim.x / 16, tile_rows = 4 * thread_rows;
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
  u64 *tile_a = tiles, *tile_b = tiles + tile_rows * kTilePitch;
  const i64 n_across = ceil_div(m, kTileColumns), n_tiles = ceil_div(n, tile_rows) * n_across;
  const i64 n_tasks = n_tiles * ceil_div(n_words, slice_words);
  for (i64 task = blockIdx.x; task < n_tasks; task += gridDim.x) {
    const i64 first_row = task % n_tiles / n_across * tile_rows, first_column = task % n_across * kTileColumns;
    const i64 slice_start = task / n_tiles * slice_words, slice_end = min(n_words, slice_start + slice_words);
    u32 ones[4][4] = {};
    for (i64 start = slice_start; start < slice_end; start += kTileWords) {
      load_tile(a, first_row, n, tile_rows, n_words, start, slice_end, tile_a);
      load_tile(b, first_column, m, kTileColumns, n_words, start, slice_end, tile_b);
      __syncthreads();
#pragma unroll
      for (int word = 0; word < kTileWords; word += 2) {
        ulonglong2 x[4], y[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          x[i] = *reinterpret_cast<const ulonglong2*>(tile_a + (i * thread_rows + ty) * kTilePitch + word);
          y[i] = *reinterpret_cast<const ulonglong2*>(tile_b + (i * 16 + tx) * kTilePitch + word);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) ones[i][j] += __popcll(x[i].x & y[j].x) + __popcll(x[i].y & y[j].y);
      }
      __syncthreads();  // before the tiles are overwritten
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const i64 row = first_row + i * thread_rows + ty, column = first_column + j * 16 + tx;
        if (row < n && column < m) atomicAdd(counts + row * m + column, u64{ones[i][j]});
      }
  }
}
