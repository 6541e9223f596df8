// Bounds and exact counts for the proven optimum. ccx/kernels/optimal.py and docs/optimal.md say what they mean.
//
// n concepts are numbered by gain, descending; matrices are i64[n, n], of what each two of them share. Formulas are
// (a op b), and ((a op b) op c).

// What (a op b) adds up to.
__device__ __forceinline__ i64 of_pair(const i64* shared, i64 n, i64 a, i64 b, int op) {
  const i64 both = shared[a * n + b];
  if (op == kAnd) return both;
  return shared[a * (n + 1)] - both + (op == kOr ? shared[b * (n + 1)] : 0);
}

__device__ __forceinline__ bool is_formula(i64 a, i64 b, int op) {
  return op == kAndNot ? a != b : a < b;  // OR and AND commute
}

// cells, counts i64[n_atoms] -> gains i64[n_atoms].
// Bytes: 24 an atom. Operations: two products, two differences, a comparison an atom.
KERNEL void atom_gains(const i64* __restrict__ cells, const i64* __restrict__ counts, i64* __restrict__ gains,
                       i64 n_atoms, i64 q, i64 p) {
  const i64 step = i64{gridDim.x} * blockDim.x;
  for (i64 g = i64{blockIdx.x} * blockDim.x + threadIdx.x; g < n_atoms; g += step)
    gains[g] = max(q * counts[g] - p * (cells[g] - counts[g]), i64{0});
}

// all_sizes, all_hits, all_gains i64[n_concepts, n_concepts], order int[n] -> the same of some concepts, in this order,
// and values q · hits - p · (sizes - hits): i64[n, n] each.
// Bytes: 24 read a pair, of which rows follow no order, 32 written. Operations: two products, two sums a pair.
KERNEL void order_pairs(const i64* __restrict__ all_sizes, const i64* __restrict__ all_hits,
                        const i64* __restrict__ all_gains, const int* __restrict__ order, i64* __restrict__ sizes,
                        i64* __restrict__ hits, i64* __restrict__ values, i64* __restrict__ gains, i64 n_concepts,
                        i64 n, i64 q, i64 p) {
  const i64 step = i64{gridDim.x} * blockDim.x;
  for (i64 pair = i64{blockIdx.x} * blockDim.x + threadIdx.x; pair < n * n; pair += step) {
    const i64 from = order[pair / n] * n_concepts + order[pair % n], size = all_sizes[from], hit = all_hits[from];
    sizes[pair] = size;
    hits[pair] = hit;
    values[pair] = q * hit - p * (size - hit);
    gains[pair] = all_gains[from];
  }
}

__device__ __forceinline__ void write_pair(int* found, i64 at, i64 a, i64 b, int op) {
  found[at * 3] = static_cast<int>(a);
  found[at * 3 + 1] = op;
  found[at * 3 + 2] = static_cast<int>(b);
}

// Pairs (a op b) of value >= least.
struct GoodPairs {
  const i64* values;
  i64 n_rows, n, least;
  int* found;

  __device__ __forceinline__ bool passes(i64 a, i64 b, int op) const {
    return is_formula(a, b, op) && of_pair(values, n, a, b, op) >= least;
  }
  __device__ __forceinline__ void write(i64 at, i64 a, i64 b, int op) const { write_pair(found, at, a, b, op); }
};

// Pairs of which an extension may reach `least`, for all that is known without the third concept: an OR adds at most
// the gain of concept 0, an AND or AND NOT keeps at most the gain of the pair.
struct OpenPairs {
  const i64 *values, *gains;
  i64 first, n_rows, n, least;  // row 0 is of concept `first`
  int* found;

  __device__ __forceinline__ bool passes(i64 row, i64 b, int op) const {
    const i64 a = first + row;
    if (!is_formula(a, b, op)) return false;
    return of_pair(gains, n, a, b, op) >= least || of_pair(values, n, a, b, op) + gains[0] >= least;
  }
  __device__ __forceinline__ void write(i64 at, i64 row, i64 b, int op) const {
    write_pair(found, at, first + row, b, op);
  }
};

// values i64[n, n] -> counts i64[n] of good pairs (a op b) for each a.
// Bytes: 8 a value. Operations: three sums and comparisons a pair.
KERNEL void count_good_pairs(const i64* __restrict__ values, i64* __restrict__ counts, i64 n, i64 least) {
  count_entries(GoodPairs{values, n, n, least, nullptr}, counts);
}

// starts i64[n] -> found int[sum of counts, 3] of a, op, b. Bytes and operations: the same, 12 a pair found.
KERNEL void list_good_pairs(const i64* __restrict__ values, const i64* __restrict__ starts, int* __restrict__ found,
                            i64 n, i64 least) {
  list_entries(GoodPairs{values, n, n, least, found}, starts);
}

// The same for open pairs, of n_rows concepts a from `first` on. Bytes: 16 a pair. Operations: twice as many.
KERNEL void count_open_pairs(const i64* __restrict__ values, const i64* __restrict__ gains, i64* __restrict__ counts,
                             i64 first, i64 n_rows, i64 n, i64 least) {
  count_entries(OpenPairs{values, gains, first, n_rows, n, least, nullptr}, counts);
}

KERNEL void list_open_pairs(const i64* __restrict__ values, const i64* __restrict__ gains,
                            const i64* __restrict__ starts, int* __restrict__ found, i64 first, i64 n_rows, i64 n,
                            i64 least) {
  list_entries(OpenPairs{values, gains, first, n_rows, n, least, found}, starts);
}

// Return whether ((a op b) op' c) may reach `least` for some op', by what each two of the three concepts share.
__device__ __forceinline__ bool may_reach(const i64* values, const i64* gains, i64 n, i64 a, i64 b, int op, i64 c,
                                          i64 value, bool narrow, bool wide, i64 least) {
  const i64 ab = a * n + b, ac = a * n + c, bc = b * n + c;
  const i64 most = min(gains[ab], min(gains[ac], gains[bc]));  // v(a and b and c) at most, and at least
  const i64 fewest = -min(gains[ab] - values[ab], min(gains[ac] - values[ac], gains[bc] - values[bc]));
  i64 upper = most, lower = fewest;  // lower <= v((a op b) and c) <= upper
  if (op != kAnd) {
    const i64 shared = values[ac] + (op == kOr ? values[bc] : 0);
    upper = shared - fewest, lower = shared - most;
  }
  return (wide && value + values[c * (n + 1)] - lower >= least) ||
         (narrow && (upper >= least || value - lower >= least));
}

// Concepts are tried in order until one may reach `least`, or until no later one can, as gains descend.
// values, gains i64[n, n], pairs int[n_pairs, 3] of a, op, b -> results i64[2, n_pairs]: whether one does (0 or 1), and
// how many were tried.
// Bytes: 48 a concept tried, of which 32 follow each other; from the cache where matrices fit it. Operations: about 30.
KERNEL void try_pairs(const i64* __restrict__ values, const i64* __restrict__ gains, const int* __restrict__ pairs,
                      i64* __restrict__ results, i64 n_pairs, i64 n, i64 least) {
  for (i64 task = first_task(); task < n_pairs; task += task_step()) {
    const i64 a = pairs[task * 3], b = pairs[task * 3 + 2];
    const int op = pairs[task * 3 + 1];
    const i64 value = of_pair(values, n, a, b, op);
    const bool narrow = of_pair(gains, n, a, b, op) >= least;
    i64 n_tried = n;
    int reached = 0;
    for (i64 first = 0; first < n; first += 32) {
      const i64 c = first + lane_id();
      const bool wide = c < n && value + gains[c * (n + 1)] >= least, ends = c < n && !narrow && !wide;
      const bool reaches = c < n && !ends && c != a && c != b &&
                           may_reach(values, gains, n, a, b, op, c, value, narrow, wide, least);
      const u32 decided = __ballot_sync(ALL_LANES, ends || reaches);
      if (!decided) continue;
      const int lane = __ffsll(i64{decided}) - 1;
      reached = __shfl_sync(ALL_LANES, static_cast<int>(reaches), lane);
      n_tried = first + lane + reached;
      break;
    }
    if (lane_id() == 0) {
      results[task] = reached;
      results[n_pairs + task] = n_tried;
    }
  }
}

// head_atoms int[n_head], the atoms of one concept; atom_starts i64[n_atoms + 1], atom_concepts u16; ranks int[C], the
// number of each concept or -1; row_of int[n], the row of each partner or -1; cells, counts i64[n_atoms] -> added to
// triples u64[2, n_rows, n], zeros before: cells of the atoms of all three concepts, and those in the bitmap.
// Bytes: 2 a concept of a head atom, 16 an atom. Operations: two atomic additions for each partner and concept of an
// atom.
KERNEL void triple_counts(const int* __restrict__ head_atoms, const i64* __restrict__ atom_starts,
                          const u16* __restrict__ atom_concepts, const int* __restrict__ ranks,
                          const int* __restrict__ row_of, const i64* __restrict__ cells,
                          const i64* __restrict__ counts, u64* __restrict__ triples, i64 n_head, i64 n_rows, i64 n) {
  for (i64 task = first_task(); task < n_head; task += task_step()) {
    const int atom = head_atoms[task];
    const u64 one = cells[atom], two = counts[atom];
    for (i64 j = atom_starts[atom] + lane_id(); j < atom_starts[atom + 1]; j += 32) {
      const int other = ranks[atom_concepts[j]];
      if (other < 0) continue;
      for (i64 i = atom_starts[atom]; i < atom_starts[atom + 1]; ++i) {
        const int partner = ranks[atom_concepts[i]], row = partner < 0 ? -1 : row_of[partner];
        if (row < 0) continue;
        atomicAdd(triples + row * n + other, one);
        if (two) atomicAdd(triples + (n_rows + row) * n + other, two);
      }
    }
  }
}

struct Counts { i64 hits, cells; };

// Extensions of pairs, one a row, by every concept, of value q * hits - p * (cells - hits) >= least.
struct GoodExtensions {
  const int *pairs, *row_of;
  const i64 *triples, *sizes, *hits;
  i64 n_triples, n_rows, n, q, p, least;
  i64* found;

  __device__ __forceinline__ Counts count(i64 row, i64 c, int op) const {
    const i64 a = pairs[row * 3], b = pairs[row * 3 + 2];
    const int first = pairs[row * 3 + 1];
    const i64* all = triples + row_of[row] * n + c;
    const i64 hit = both(hits, all[n_triples * n], a, first, b, c), size = both(sizes, *all, a, first, b, c);
    if (op == kAnd) return {hit, size};
    const i64 c_hit = op == kOr ? hits[c * (n + 1)] : 0, c_size = op == kOr ? sizes[c * (n + 1)] : 0;
    return {of_pair(hits, n, a, b, first) + c_hit - hit, of_pair(sizes, n, a, b, first) + c_size - size};
  }
  // What (a op b) shares with c, given what all three share.
  __device__ __forceinline__ i64 both(const i64* shared, i64 all, i64 a, int op, i64 b, i64 c) const {
    if (op == kAnd) return all;
    return shared[a * n + c] + (op == kOr ? shared[b * n + c] : 0) - all;
  }
  __device__ __forceinline__ bool passes(i64 row, i64 c, int op) const {
    if (c == pairs[row * 3] || c == pairs[row * 3 + 2]) return false;
    const Counts counts = count(row, c, op);
    return q * counts.hits - p * (counts.cells - counts.hits) >= least;
  }
  __device__ __forceinline__ void write(i64 at, i64 row, i64 c, int op) const {
    const Counts counts = count(row, c, op);
    i64* entry = found + at * 7;
#pragma unroll
    for (int i = 0; i < 3; ++i) entry[i] = pairs[row * 3 + i];
    entry[3] = op;
    entry[4] = c;
    entry[5] = counts.hits;
    entry[6] = counts.cells;
  }
};

// pairs int[n_pairs, 3] of a, op, b; row_of int[n_pairs], their rows in triples i64[2, n_triples, n]; sizes, hits
// i64[n, n] -> counts i64[n_pairs] of good extensions of each pair.
// Bytes: 64 a pair and concept, from the cache where matrices fit it. Operations: about 30.
KERNEL void count_good_extensions(const int* __restrict__ pairs, const int* __restrict__ row_of,
                                  const i64* __restrict__ triples, const i64* __restrict__ sizes,
                                  const i64* __restrict__ hits, i64* __restrict__ counts, i64 n_triples, i64 n_pairs,
                                  i64 n, i64 q, i64 p, i64 least) {
  count_entries(GoodExtensions{pairs, row_of, triples, sizes, hits, n_triples, n_pairs, n, q, p, least, nullptr},
                counts);
}

// starts i64[n_pairs] -> found i64[sum of counts, 7] of a, op, b, op, c, |F and B|, |F|. Bytes and operations: the
// same, 56 an extension found.
KERNEL void list_good_extensions(const int* __restrict__ pairs, const int* __restrict__ row_of,
                                 const i64* __restrict__ triples, const i64* __restrict__ sizes,
                                 const i64* __restrict__ hits, const i64* __restrict__ starts,
                                 i64* __restrict__ found, i64 n_triples, i64 n_pairs, i64 n, i64 q, i64 p,
                                 i64 least) {
  list_entries(GoodExtensions{pairs, row_of, triples, sizes, hits, n_triples, n_pairs, n, q, p, least, found}, starts);
}
