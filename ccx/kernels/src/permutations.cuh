// Histograms of a bitmap whose samples were exchanged. ccx/kernels/permutations.py says what the result means.

// A block takes this many words of a sample at a time. The cells of half a word that are of one atom are a mask of 32
// bits, and half a word has as many masks as atoms, at most one a cell.
constexpr int kTileHalves = 32;

// The masks of the half words of a tile, those of a half side by side, and how many there are.
template <class LocalAtom>
__device__ __forceinline__ void make_masks(const LocalAtom* cell_atoms, i64 first_cell, i64 n_cells, i64 n_local,
                                           u32* masks, u32* atoms, u32* n_masks) {
  const int lane = lane_id();
  for (int half = threadIdx.x / 32; half < kTileHalves; half += blockDim.x / 32) {
    const i64 cell = first_cell + half * 32 + lane;
    const u32 atom = cell < n_cells ? cell_atoms[cell] : 0xffffffffu;
    u32 left = __ballot_sync(ALL_LANES, atom < n_local);  // others are not valid, or no cells
    u32 n = 0;
    for (; left; ++n) {
      const u32 next = __shfl_sync(ALL_LANES, atom, __ffsll(i64{left}) - 1);
      const u32 mask = __ballot_sync(ALL_LANES, atom == next);
      if (lane == 0) masks[half * 32 + n] = mask, atoms[half * 32 + n] = next;
      left &= ~mask;
    }
    if (lane == 0) n_masks[half] = n;
  }
}

// A thread counts for one order of the samples, in a column of shared memory of its own: the first n_slots / blockDim.x
// atoms of a sample, others straight in global memory.
template <class LocalAtom>
__device__ __forceinline__ void count_permuted(const u64* rows, const int* orders, const LocalAtom* cell_atoms,
                                               const i64* sample_starts, const int* sample_atoms, u32* counts,
                                               i64 n_orders, i64 n_samples, i64 n_cells, int n_slots) {
  SHARED(u32, masks, 32 * kTileHalves);
  SHARED(u32, atoms, 32 * kTileHalves);
  SHARED(u32, n_masks, kTileHalves);
  DYNAMIC_SHARED(u32, table);
  u32* column = table + threadIdx.x;
  const i64 n_words = ceil_div(n_cells, 64), n_groups = ceil_div(n_orders, i64{blockDim.x});
  const i64 room = n_slots / blockDim.x;
  for (i64 task = blockIdx.x; task < n_samples * n_groups; task += gridDim.x) {
    const i64 sample = task / n_groups, order = task % n_groups * blockDim.x + threadIdx.x;
    const i64 entries = sample_starts[sample], n_local = sample_starts[sample + 1] - entries;
    const bool counts_here = order < n_orders;
    const u64* row = rows + (counts_here ? orders[order * n_samples + sample] : 0) * n_words;
    for (i64 atom = 0; atom < min(n_local, room); ++atom) column[atom * blockDim.x] = 0;
    for (i64 first = 0; first < n_words; first += kTileHalves / 2) {
      make_masks(cell_atoms + sample * n_cells, first * 64, n_cells, n_local, masks, atoms, n_masks);
      __syncthreads();
      for (int half = 0; half < kTileHalves && first + half / 2 < n_words && counts_here; ++half) {
        const u32 brought = static_cast<u32>(row[first + half / 2] >> half % 2 * 32);
        for (u32 i = half * 32; i < half * 32 + n_masks[half]; ++i) {
          const u32 ones = __popc(masks[i] & brought);
          if (atoms[i] < room)
            column[atoms[i] * blockDim.x] += ones;
          else if (ones)
            atomicAdd(counts + sample_atoms[entries + atoms[i]] * n_orders + order, ones);
        }
      }
      __syncthreads();  // before the masks are overwritten
    }
    for (i64 atom = 0; atom < min(n_local, room); ++atom) {
      const u32 ones = column[atom * blockDim.x];
      if (ones) atomicAdd(counts + sample_atoms[entries + atom] * n_orders + order, ones);
    }
  }
}

// rows u64[n_samples, ceil(n_cells / 64)], padding zero; orders int[n_orders, n_samples]: sample n gets the row of
// sample orders[j, n]; cell_atoms u16 or u32[n_samples, n_cells], sample_starts i64[n_samples + 1], sample_atoms
// int[n_entries] -> added to counts u32[n_atoms, n_orders], zeros before; fewer than 2^32 cells in all.
// Dynamic shared memory: 4 · n_slots bytes, beside 8.3 KB.
// Bytes: 1/8 per cell and order, from the cache where it holds the bitmap; the atoms of all cells once for blockDim.x
// orders; 4 per sample, atom of it and order. Operations: an AND, a popcount and an addition in shared memory for each
// mask and order.
KERNEL void permuted_histogram_u16(const u64* __restrict__ rows, const int* __restrict__ orders,
                                   const u16* __restrict__ cell_atoms, const i64* __restrict__ sample_starts,
                                   const int* __restrict__ sample_atoms, u32* __restrict__ counts, i64 n_orders,
                                   i64 n_samples, i64 n_cells, int n_slots) {
  count_permuted(rows, orders, cell_atoms, sample_starts, sample_atoms, counts, n_orders, n_samples, n_cells, n_slots);
}

KERNEL void permuted_histogram_u32(const u64* __restrict__ rows, const int* __restrict__ orders,
                                   const u32* __restrict__ cell_atoms, const i64* __restrict__ sample_starts,
                                   const int* __restrict__ sample_atoms, u32* __restrict__ counts, i64 n_orders,
                                   i64 n_samples, i64 n_cells, int n_slots) {
  count_permuted(rows, orders, cell_atoms, sample_starts, sample_atoms, counts, n_orders, n_samples, n_cells, n_slots);
}
