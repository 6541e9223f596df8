// Left-deep formulas counted over atoms. ccx/kernels/formulas.py says what each result means.
//
// The concepts of atom g are atom_concepts[atom_starts[g] .. atom_starts[g + 1]), ascending. Weights and counts are int64 of the host:
// sums of either sign come out right modulo 2^64, whatever the order of additions.

// Formula f is ((c0 op0 c1) op1 c2) ...; operators 0 OR, 1 AND, 2 AND NOT. One of no concept holds in every atom.
struct Formulas {
  const int* concepts;
  const u8* operators;
  i64 length;
};

// Whether an ascending list of concepts holds one, by bisection.
__device__ __forceinline__ bool has(const u16* concepts, u32 n_concepts, int concept) {
  u32 first = 0, last = n_concepts;
  while (first < last) {
    const u32 middle = (first + last) / 2;
    if (concepts[middle] < concept)
      first = middle + 1;
    else
      last = middle;
  }
  return first < n_concepts && concepts[first] == concept;
}

__device__ __forceinline__ bool holds(const Formulas& formulas, i64 formula, const u16* concepts, u32 n_concepts) {
  const int* operands = formulas.concepts + formula * formulas.length;
  const u8* operators = formulas.operators + formula * (formulas.length - 1);
  bool inside = formulas.length == 0 || has(concepts, n_concepts, operands[0]);
  for (i64 j = 1; j < formulas.length; ++j) {
    const u8 connective = operators[j - 1];
    if (inside == (connective == 0)) continue;  // true OR, or false AND, whatever follows
    const bool operand = has(concepts, n_concepts, operands[j]);
    inside = connective == 2 ? !operand : operand;
  }
  return inside;
}

// Add to a count that is kept as two words: shared memory adds 32 bits at once, 64 only in a loop of exchanges.
__device__ __forceinline__ void add_in_halves(u32* low, u32* high, u64 value) {
  const u32 part = static_cast<u32>(value), before = atomicAdd(low, part);
  const u32 rest = static_cast<u32>(value >> 32) + (before + part < before ? 1 : 0);
  if (rest) atomicAdd(high, rest);
}

constexpr i64 kChunkAtoms = 512;  // what a warp of formula_counts takes at a time: a sum of all must fill a GPU

// weights u64[n_rows, n_atoms] -> added to counts u64[n_rows, n_formulas], zeros before.
// Bytes: for a formula the concepts (2 each) and starts (8) of all atoms, and 8 a weight, from the cache where it holds
// them. Operations for an atom: a bisection an operand that decides, an addition per row.
KERNEL void formula_counts(const i64* __restrict__ atom_starts, const u16* __restrict__ atom_concepts,
                           const u64* __restrict__ weights, const int* __restrict__ concepts,
                           const u8* __restrict__ operators, u64* __restrict__ counts, i64 n_atoms, i64 n_rows,
                           i64 n_formulas, i64 length) {
  const Formulas formulas = {concepts, operators, length};
  const i64 n_chunks = ceil_div(n_atoms, kChunkAtoms);
  for (i64 task = first_task(); task < n_rows * n_formulas * n_chunks; task += task_step()) {
    const i64 count = task / n_chunks, row = count / n_formulas, formula = count % n_formulas;
    const i64 start = task % n_chunks * kChunkAtoms, end = min(n_atoms, start + kChunkAtoms);
    u64 sum = 0;
    for (i64 atom = start + lane_id(); atom < end; atom += 32) {
      const u64 weight = weights[row * n_atoms + atom];
      const i64 start_here = atom_starts[atom];
      const u32 n_here = static_cast<u32>(atom_starts[atom + 1] - start_here);
      if (weight && holds(formulas, formula, atom_concepts + start_here, n_here)) sum += weight;
    }
    sum = warp_sum(sum);
    if (lane_id() == 0 && sum) atomicAdd(counts + count, sum);
  }
}

// A piece of the atoms that may satisfy a formula: those of one concept, posted[start .. end), but for those that hold
// one of the `n_before` concepts of the pieces before this one. Its first slice is task `first_task`.
struct Piece {
  i64 formula, concept, n_before, start, end, first_task;
};

// The last piece that starts at or before a task.
__device__ __forceinline__ i64 piece_of(const Piece* pieces, i64 n_pieces, i64 task) {
  i64 first = 0, last = n_pieces - 1;
  while (first < last) {
    const i64 middle = (first + last + 1) / 2;
    if (pieces[middle].first_task <= task)
      first = middle;
    else
      last = middle - 1;
  }
  return first;
}

// As formula_counts, of each formula AND each concept -> added to counts u64[n_rows, n_formulas, n_concepts], zeros
// before. `posted` int[...] lists the atoms of each concept; pieces i64[n_pieces, 6] as above, none of them empty. The one
// formula of no concept has the one piece [0, n_atoms), of atoms themselves. A block takes slice_atoms atoms of a piece
// and as many rows as n_slots numbers hold; where not even one row fits, every addition goes to global memory.
// Dynamic shared memory: 8 · n_slots bytes.
// Bytes for an atom of a piece: 4, its concepts (2 each) and where they start (16), 8 a weight; from the cache where it
// holds them. Operations: a bisection an operand that decides; where the formula holds and the weight is not 0, an
// atomic addition for each of its concepts.
KERNEL void conjunction_counts(const i64* __restrict__ atom_starts, const u16* __restrict__ atom_concepts,
                               const int* __restrict__ posted, const u64* __restrict__ weights,
                               const int* __restrict__ concepts, const u8* __restrict__ operators,
                               const i64* __restrict__ pieces, u64* __restrict__ counts, i64 n_atoms, i64 n_rows,
                               i64 n_formulas, i64 length, i64 n_concepts, i64 n_pieces, i64 n_slices,
                               i64 slice_atoms, i64 n_slots) {
  DYNAMIC_SHARED(u32, halves);
  u32 *low = halves, *high = halves + n_slots;
  const Formulas formulas = {concepts, operators, length};
  const Piece* all_pieces = reinterpret_cast<const Piece*>(pieces);
  const bool fits = n_concepts <= n_slots;
  const i64 rows_a_task = fits ? min(n_slots / n_concepts, n_rows) : n_rows;
  for (i64 task = blockIdx.x; task < n_slices * ceil_div(n_rows, rows_a_task); task += gridDim.x) {
    const i64 first_row = task / n_slices * rows_a_task, last_row = min(n_rows, first_row + rows_a_task);
    const i64 p = piece_of(all_pieces, n_pieces, task % n_slices);
    const Piece piece = all_pieces[p];
    const i64 start = piece.start + (task % n_slices - piece.first_task) * slice_atoms;
    const i64 end = min(piece.end, start + slice_atoms);
    u64* counts_here = counts + (first_row * n_formulas + piece.formula) * n_concepts;
    const u32 n_used = fits ? static_cast<u32>((last_row - first_row) * n_concepts) : 0;
    for (u32 slot = threadIdx.x; slot < n_used; slot += blockDim.x) low[slot] = high[slot] = 0;
    __syncthreads();
    for (i64 i = start + threadIdx.x; i < end; i += blockDim.x) {
      const i64 atom = length ? posted[i] : i;
      const u16* own = atom_concepts + atom_starts[atom];
      const u32 n_own = static_cast<u32>(atom_starts[atom + 1] - atom_starts[atom]);
      bool inside = true;
      for (i64 before = 1; inside && before <= piece.n_before; ++before)
        inside = !has(own, n_own, static_cast<int>(all_pieces[p - before].concept));
      if (inside && length > 1) inside = holds(formulas, piece.formula, own, n_own);
      if (!inside) continue;
      for (i64 row = first_row; row < last_row; ++row) {
        const u64 weight = weights[row * n_atoms + atom];
        if (!weight) continue;
        const u32 slots = static_cast<u32>(fits ? (row - first_row) * n_concepts : 0);
        u64* global = counts_here + (row - first_row) * n_formulas * n_concepts;
        for (u32 k = 0; k < n_own; ++k) {
          if (fits)
            add_in_halves(low + slots + own[k], high + slots + own[k], weight);
          else
            atomicAdd(global + own[k], weight);
        }
      }
    }
    __syncthreads();
    for (u32 slot = threadIdx.x; slot < n_used; slot += blockDim.x) {
      const u32 row = slot / static_cast<u32>(n_concepts), concept = slot % static_cast<u32>(n_concepts);
      const u64 sum = u64{high[slot]} << 32 | low[slot];
      if (sum) atomicAdd(counts_here + row * n_formulas * n_concepts + concept, sum);
    }
    // No barrier: the thread that read a slot is the one that clears it next.
  }
}
