// The published estimates of the IoU of (F op c), for U bitmaps, F formulas, N samples, C concepts and the R places
// where a concept occurs in a sample. ccx/kernels/estimates.py and docs/heuristics.md say what each result means.
//
// What a concept contributes where it is absent depends on the formula alone. That is summed once per formula
// (`estimate_totals`), each occurrence adds the difference (`estimate_occurrences`), and `estimate_quotients` puts the
// two together. All sums are exact: int64, added modulo 2^64.

constexpr int kMmesh = 0, kAreas = 2;  // the kinds of estimates; 1 is CFH

// Sums over the samples of a formula: cells in the bitmap; cells; what the published code counts for AND NOT an absent
// concept; min(bitmap, formula); cells of the bitmap; samples of which the formula holds some cells, but not all.
constexpr int kHits = 0, kCells = 1, kWithout = 2, kAlone = 3, kInside = 4, kPartial = 5, kTotals = 6;

struct Box { int row0, col0, row1, col1; };  // half-open

// Box `at` of int[..., 4]: one 128-bit load where they start on 16 bytes.
__device__ __forceinline__ Box load_box(const int* boxes, i64 at) {
  const int* box = boxes + at * 4;
  if (reinterpret_cast<u64>(boxes) % 16) return {box[0], box[1], box[2], box[3]};
  const uint4 four = *reinterpret_cast<const uint4*>(box);
  return {static_cast<int>(four.x), static_cast<int>(four.y), static_cast<int>(four.z), static_cast<int>(four.w)};
}

// The same for boxes that start on 16 bytes.
__device__ __forceinline__ void store_box(int* boxes, i64 at, const Box& box) {
  uint4 four;
  four.x = box.row0, four.y = box.col0, four.z = box.row1, four.w = box.col1;
  *reinterpret_cast<uint4*>(boxes + at * 4) = four;
}

__device__ __forceinline__ i64 shared_cells(const Box& a, const Box& b) {
  const int rows = min(a.row1, b.row1) - max(a.row0, b.row0), columns = min(a.col1, b.col1) - max(a.col0, b.col0);
  return rows > 0 && columns > 0 ? i64{rows} * columns : 0;
}

// The bounding box of a concept that is absent: in the published code it counts the cell (0, 0). That of a formula that
// is absent never matters.
__device__ __forceinline__ Box absent() { return {0, 0, 1, 1}; }

__device__ __forceinline__ void add(i64* sum, i64 value) {
  if (value) atomicAdd(reinterpret_cast<u64*>(sum), static_cast<u64>(value));
}

// rows u64[n_rows, n_words], bitmap u64[n_samples, n_words], starts i64[n_samples + 1], row_of i64[n_occurrences], -1
// where the concept covers the sample -> hits int[n_occurrences], cells that each occurrence shares with the bitmap.
// Bytes: 8 per word of rows, and the bitmap's once where its samples fit the cache. Operations: an AND, a popcount, an
// addition per word; log2(n_samples) cached loads per occurrence.
KERNEL void concept_hits(const u64* __restrict__ rows, const u64* __restrict__ bitmap, const i64* __restrict__ starts,
                         const i64* __restrict__ row_of, int* __restrict__ hits, i64 n_occurrences, i64 n_samples,
                         i64 n_words) {
  for (i64 task = first_task(); task < n_occurrences; task += task_step()) {
    i64 sample = 0, end = n_samples;  // the last sample that starts here or before, which is no empty one
    while (end - sample > 1) {
      const i64 middle = (sample + end) / 2;
      if (starts[middle] <= task)
        sample = middle;
      else
        end = middle;
    }
    const u64* cells = bitmap + sample * n_words;
    const u64* row = row_of[task] < 0 ? cells : rows + row_of[task] * n_words;
    const bool pairs = holds_pairs(cells), pairs_row = holds_pairs(row);
    u32 ones = 0;
    for (i64 at = 2 * lane_id(); at < n_words; at += 64) {
      const ulonglong2 x = load_pair(cells, at, n_words, pairs), y = load_pair(row, at, n_words, pairs_row);
      ones += __popcll(x.x & y.x) + __popcll(x.y & y.y);
    }
    ones = warp_sum(ones);
    if (lane_id() == 0) hits[task] = static_cast<int>(ones);
  }
}

// Boxes of masks int[n_rows, 4], twice, and the mask of each occurrence row_of i64[n_occurrences], -1 where the
// concept covers the sample -> boxes and rectangles int[n_occurrences, 4] of occurrences; full_only int[n_concepts],
// ones before, becomes 0 where a concept has a mask of its own somewhere. concepts int[n_occurrences].
// Bytes: 76 per occurrence. Operations: an atomic exchange per occurrence with a mask.
KERNEL void occurrence_shapes(const int* __restrict__ row_boxes, const int* __restrict__ row_rectangles,
                              const i64* __restrict__ row_of, const int* __restrict__ concepts,
                              int* __restrict__ boxes, int* __restrict__ rectangles, int* __restrict__ full_only,
                              i64 n_occurrences, int height, int width) {
  const i64 step = i64{gridDim.x} * blockDim.x;
  for (i64 e = i64{blockIdx.x} * blockDim.x + threadIdx.x; e < n_occurrences; e += step) {
    const Box whole = {0, 0, height, width};
    const i64 row = row_of[e];
    store_box(boxes, e, row < 0 ? whole : load_box(row_boxes, row));
    store_box(rectangles, e, row < 0 ? whole : load_box(row_rectangles, row));
    if (row >= 0) atomicExch(full_only + concepts[e], 0);
  }
}

// A warp sums this many samples of a formula at a time.
constexpr i64 kChunkSamples = 1024;

// areas, hits int[U, F, N], boxes int[U, F, N, 4] (read for MMESH only), bitmap_areas int[U, N] -> added to totals
// i64[U, F, 6], zeros before.
// Bytes: 12 per formula and sample, 28 for MMESH. Operations: about 20 of them.
KERNEL void estimate_totals(const int* __restrict__ areas, const int* __restrict__ hits, const int* __restrict__ boxes,
                            const int* __restrict__ bitmap_areas, i64* __restrict__ totals, i64 n_units,
                            i64 n_formulas, i64 n_samples, i64 n_cells, int kind) {
  const i64 tasks_a_formula = ceil_div(n_samples, kChunkSamples);
  for (i64 task = first_task(); task < n_units * n_formulas * tasks_a_formula; task += task_step()) {
    const i64 formula = task / tasks_a_formula, unit = formula / n_formulas;
    const i64 start = task % tasks_a_formula * kChunkSamples, end = min(n_samples, start + kChunkSamples);
    i64 sums[kTotals] = {};
    for (i64 sample = start + lane_id(); sample < end; sample += 32) {
      const i64 at = formula * n_samples + sample, area = areas[at], hit = hits[at];
      const i64 inside = bitmap_areas[unit * n_samples + sample];
      sums[kHits] += hit;
      sums[kCells] += area;
      if (kind == kMmesh)
        sums[kWithout] += max(area - shared_cells(load_box(boxes, at), absent()), hit);
      sums[kAlone] += min(inside, area);
      sums[kInside] += inside;
      sums[kPartial] += area != 0 && area != n_cells;
    }
#pragma unroll
    for (int i = 0; i < kTotals; ++i) {
      const i64 sum = warp_sum(sums[i]);
      if (lane_id() == 0) add(totals + formula * kTotals + i, sum);
    }
  }
}

// Formulas as above and rectangles int[U, F, N, 4]; concepts: starts i64[N + 1], concepts, c_areas int[R], c_boxes,
// c_rectangles int[R, 4], full_only u8[C]; c_hits int[U, R] -> added to intersections and sizes i64[U, F, C, 3], zeros
// before: what each occurrence changes in a sample. Boxes and rectangles are read for MMESH only.
// Bytes: 12 per occurrence and bitmap (44 for MMESH; from memory once, where occurrences fit the cache), 8 per formula and
// sample (40), 8 an atomic addition. Operations: about 40 per occurrence and formula, up to six atomic additions.
KERNEL void estimate_occurrences(const int* __restrict__ areas, const int* __restrict__ hits,
                                 const int* __restrict__ boxes, const int* __restrict__ rectangles,
                                 const i64* __restrict__ starts, const int* __restrict__ concepts,
                                 const int* __restrict__ c_areas, const int* __restrict__ c_boxes,
                                 const int* __restrict__ c_rectangles, const u8* __restrict__ full_only,
                                 const int* __restrict__ c_hits, const int* __restrict__ bitmap_areas,
                                 const i64* __restrict__ totals, i64* __restrict__ intersections,
                                 i64* __restrict__ sizes, i64 n_units, i64 n_formulas, i64 n_samples,
                                 i64 n_concepts, i64 n_occurrences, i64 n_cells, int kind) {
  // A warp takes a sample, a lane an occurrence there, which it meets with all formulas.
  for (i64 task = first_task(); task < n_units * n_samples; task += task_step()) {
    const i64 unit = task / n_samples, sample = task % n_samples, inside = bitmap_areas[task];
    for (i64 e = starts[sample] + lane_id(); e < starts[sample + 1]; e += 32) {
      const i64 c = concepts[e], c_area = c_areas[e], c_hit = c_hits[unit * n_occurrences + e];
      Box c_box = {}, c_rectangle = {};
      if (kind == kMmesh) c_box = load_box(c_boxes, e), c_rectangle = load_box(c_rectangles, e);
      for (i64 formula = unit * n_formulas; formula < (unit + 1) * n_formulas; ++formula) {
        const i64 at = formula * n_samples + sample, area = areas[at];
        i64* i = intersections + (formula * n_concepts + c) * 3;
        i64* m = sizes + (formula * n_concepts + c) * 3;
        if (kind == kAreas) {
          add(i + kOr, min(inside, area + c_area) - min(inside, area));
          add(i + kAnd, min(area, c_area));
          add(i + kAndNot, min(area, n_cells - c_area) - area);
          continue;
        }
        const i64 hit = hits[at], both = min(hit, c_hit), rest = min(hit, inside - c_hit);
        add(i + kAnd, both);
        add(i + kAndNot, rest - hit);
        if (full_only[c] || totals[formula * kTotals + kPartial] == 0) {  // the scene rule
          const i64 either = max(area, c_area);
          add(i + kOr, (either == n_cells ? inside : hit + c_hit) - hit);
          add(m + kOr, either - area);
          add(m + kAnd, min(area, c_area));
          add(m + kAndNot, min(area, n_cells - c_area) - area);
          continue;
        }
        const i64 either = min(inside, hit + c_hit);
        add(i + kOr, either - hit);
        if (kind != kMmesh) continue;
        const Box box = load_box(boxes, at);
        const i64 shared = shared_cells(box, c_box), without = max(area - shared_cells(box, absent()), hit);
        add(m + kOr, max(max(area, c_area), max(area + c_area - shared, either)) - area);
        add(m + kAnd, max(shared_cells(load_box(rectangles, at), c_rectangle), both));
        add(m + kAndNot, max(area - shared, rest) - without);
      }
    }
  }
}

// totals i64[U, F, 6], full_only u8[C] -> in place, i64[U, F, C, 3]: intersections become numerators, sizes
// denominators.
// Bytes: 32 per candidate. Operations: about 10.
KERNEL void estimate_quotients(const i64* __restrict__ totals, const u8* __restrict__ full_only,
                               i64* __restrict__ intersections, i64* __restrict__ sizes, i64 n_formulas,
                               i64 n_concepts, int kind) {
  const i64 step = i64{gridDim.x} * blockDim.x;
  for (i64 at = i64{blockIdx.x} * blockDim.x + threadIdx.x; at < n_formulas * n_concepts * 3; at += step) {
    const i64 c = at / 3 % n_concepts, *sums = totals + at / 3 / n_concepts * kTotals;
    const int op = static_cast<int>(at % 3);
    i64 i = intersections[at], m = sizes[at];
    if (kind == kAreas) {
      if (op != kAnd) i += op == kOr ? sums[kAlone] : sums[kCells];
    } else if (op != kAnd) {
      i += sums[kHits];
      if (full_only[c] || sums[kPartial] == 0)
        m += sums[kCells];
      else if (kind == kMmesh)
        m += op == kOr ? sums[kCells] : sums[kWithout];
    }
    intersections[at] = i;
    sizes[at] = sums[kInside] + m - i;
  }
}
