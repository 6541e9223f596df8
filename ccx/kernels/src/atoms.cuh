// Counts by pair of concepts over atoms. ccx/kernels/atoms.py says what the result means.

// The concepts of atom g are atom_concepts[atom_starts[g] .. atom_starts[g + 1]); weights u64[n_atoms]
// -> added to counts u64[n_concepts, n_concepts], zeros before; exact modulo 2^64.
// A warp takes an atom, its lanes the pairs of the atom's concepts.
// Bytes: the concepts (2 each) and starts (8) of all atoms, 8 a weight; the counts once, from the cache where it holds
// them. Operations: an atomic addition in global memory for each pair of each atom whose weight is not 0.
KERNEL void pair_counts(const i64* __restrict__ atom_starts, const u16* __restrict__ atom_concepts,
                        const u64* __restrict__ weights, u64* __restrict__ counts, i64 n_atoms, i64 n_concepts) {
  for (i64 atom = first_task(); atom < n_atoms; atom += task_step()) {
    const u64 weight = weights[atom];
    if (!weight) continue;  // the whole warp: no lane waits for another
    const u16* concepts = atom_concepts + atom_starts[atom];
    const u32 n_here = static_cast<u32>(atom_starts[atom + 1] - atom_starts[atom]);
    for (u32 i = lane_id(); i < n_here * n_here; i += 32)  // fewer than 2^16 concepts: no overflow
      atomicAdd(counts + i64{concepts[i / n_here]} * n_concepts + concepts[i % n_here], weight);
  }
}
