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
__device__ __forceinline__ bool has(const u16* concepts, i64 first, i64 last, int concept) {
  const i64 end = last;
  while (first < last) {
    const i64 middle = (first + last) / 2;
    if (concepts[middle] < concept)
      first = middle + 1;
    else
      last = middle;
  }
  return first < end && concepts[first] == concept;
}

__device__ __forceinline__ bool holds(const Formulas& formulas, i64 formula, const u16* concepts, i64 first,
                                      i64 last) {
  const int* operands = formulas.concepts + formula * formulas.length;
  const u8* operators = formulas.operators + formula * (formulas.length - 1);
  bool inside = formulas.length == 0 || has(concepts, first, last, operands[0]);
  for (i64 j = 1; j < formulas.length; ++j) {
    const u8 connective = operators[j - 1];
    if (inside == (connective == 0)) continue;  // true OR, or false AND, whatever follows
    const bool operand = has(concepts, first, last, operands[j]);
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

constexpr i64 kChunkAtoms = 4096;  // what a warp of formula_counts takes at a time

// weights u64[n_rows, n_atoms] -> added to counts u64[n_rows, n_formulas], zeros before.
// Bytes: for a formula the concepts (2 each) and starts (8) of all atoms, and 8 a weight, from the cache where it holds
// them. Operations for an atom: a bisection an operand that decides, an addition a row.
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
      if (weight && holds(formulas, formula, atom_concepts, atom_starts[atom], atom_starts[atom + 1])) sum += weight;
    }
    sum = warp_sum(sum);
    if (lane_id() == 0 && sum) atomicAdd(counts + count, sum);
  }
}

// As formula_counts, of each formula AND each concept -> added to counts u64[n_rows, n_formulas, n_concepts], zeros
// before. A block takes a slice of the atoms and a group of counts, a count being n_concepts numbers for one formula and
// row: as many as n_slots numbers hold, so that a slice is read once for all of them. Where not even one fits, every
// addition goes to global memory. Dynamic shared memory: 8 · n_slots bytes.
// Bytes: for a group the concepts (2 each) and starts (8) of all atoms, and 8 a weight, from the cache where it holds
// them. Operations for an atom: a bisection an operand that decides; where the formula holds and the weight is not 0, an
// atomic addition for each of its concepts.
KERNEL void conjunction_counts(const i64* __restrict__ atom_starts, const u16* __restrict__ atom_concepts,
                               const u64* __restrict__ weights, const int* __restrict__ concepts,
                               const u8* __restrict__ operators, u64* __restrict__ counts, i64 n_atoms, i64 n_rows,
                               i64 n_formulas, i64 length, i64 n_concepts, i64 slice_atoms, i64 n_slots) {
  DYNAMIC_SHARED(u32, halves);
  u32 *low = halves, *high = halves + n_slots;
  const Formulas formulas = {concepts, operators, length};
  const bool fits = n_concepts <= n_slots;
  const i64 n_counts = n_rows * n_formulas, counts_a_group = fits ? min(n_slots / n_concepts, n_counts) : n_counts;
  const i64 n_slices = ceil_div(n_atoms, slice_atoms), n_tasks = n_slices * ceil_div(n_counts, counts_a_group);
  for (i64 task = blockIdx.x; task < n_tasks; task += gridDim.x) {
    const i64 first = task / n_slices * counts_a_group, last = min(n_counts, first + counts_a_group);
    const i64 start = task % n_slices * slice_atoms, end = min(n_atoms, start + slice_atoms);
    const i64 n_used = fits ? (last - first) * n_concepts : 0;
    for (i64 slot = threadIdx.x; slot < n_used; slot += blockDim.x) low[slot] = high[slot] = 0;
    __syncthreads();
    for (i64 atom = start + threadIdx.x; atom < end; atom += blockDim.x) {
      const i64 first_concept = atom_starts[atom], last_concept = atom_starts[atom + 1];
      for (i64 count = first; count < last; ++count) {
        const i64 row = count % n_rows, formula = count / n_rows;  // the rows of a formula together
        const u64 weight = weights[row * n_atoms + atom];
        if (!weight || !holds(formulas, formula, atom_concepts, first_concept, last_concept)) continue;
        const i64 slots = (count - first) * n_concepts;
        u64* global = counts + (row * n_formulas + formula) * n_concepts;
        for (i64 i = first_concept; i < last_concept; ++i) {
          if (fits)
            add_in_halves(low + slots + atom_concepts[i], high + slots + atom_concepts[i], weight);
          else
            atomicAdd(global + atom_concepts[i], weight);
        }
      }
    }
    __syncthreads();
    for (i64 slot = threadIdx.x; slot < n_used; slot += blockDim.x) {
      const i64 count = first + slot / n_concepts, row = count % n_rows, formula = count / n_rows;
      const u64 sum = u64{high[slot]} << 32 | low[slot];
      if (sum) atomicAdd(counts + (row * n_formulas + formula) * n_concepts + slot % n_concepts, sum);
    }
    // No barrier: the thread that read a slot is the one that clears it next.
  }
}
