// The search of the sets of items that may follow a formula: the last step of the bounds of branching.cuh, which says
// what items are and where they come from. ccx/kernels/cpu/sets.py computes the same on the CPU.
//
// n_chosen formulas of a batch have a few items each, at most `width`. Tables of item pairs lie at `offsets`
// i64[n_chosen], n_items squared each; other arrays have a row of `width` a formula. An item's number is its place in
// items, and its rank its place once sorted by what it is worth alone.

constexpr i64 kChunkAtoms = 1024;  // what a warp takes at a time

// inside u8[n_formulas, n_atoms]; place int[n_formulas, C + 1], 1, 2 ... for the concepts of items, else 0 -> added to
// values and gains u64[offsets ...], zeros before: what each two of those share inside the formula, at (greater place,
// lesser place), in rows as long as there are items.
// Bytes: 1 an atom, 24 one that is inside, 8 a concept of such an atom. Operations: two atomic additions a pair of
// these.
KERNEL void count_within(const i64* __restrict__ atom_starts, const int* __restrict__ atom_ranks,
                         const i64* __restrict__ atom_values, const u8* __restrict__ inside,
                         const int* __restrict__ place, const int* __restrict__ chosen,
                         const int* __restrict__ n_items, const i64* __restrict__ offsets, u64* __restrict__ values,
                         u64* __restrict__ gains, i64 n_chosen, i64 n_atoms, i64 n_concepts) {
  const i64 n_chunks = ceil_div(n_atoms, kChunkAtoms);
  for (i64 task = first_task(); task < n_chosen * n_chunks; task += task_step()) {
    const i64 at = task / n_chunks, start = task % n_chunks * kChunkAtoms, end = min(n_atoms, start + kChunkAtoms);
    const i64 formula = chosen[at], n = n_items[formula];
    const int* place_of = place + formula * (n_concepts + 1);
    for (i64 atom = start + lane_id(); atom < end; atom += 32) {
      if (!inside[formula * n_atoms + atom]) continue;
      const i64 value = atom_values[atom];
      for (i64 j = atom_starts[atom]; j < atom_starts[atom + 1]; ++j) {
        const int one = place_of[atom_ranks[j]];
        if (!one) continue;
        for (i64 i = atom_starts[atom]; i < j; ++i) {
          const int two = place_of[atom_ranks[i]];
          if (!two) continue;
          const i64 cell = offsets[at] + (max(one, two) - 1) * n + min(one, two) - 1;
          atomicAdd(values + cell, static_cast<u64>(value));
          if (value > 0) atomicAdd(gains + cell, static_cast<u64>(value));
        }
      }
    }
  }
}

// own i64[n_formulas, 2 C]; items int[n_formulas, 2 C] -> ordered int[n_chosen, width], descending by what they are
// worth alone, equals as they come; worth i64[n_chosen, m, width], of which the first row is what that is.
// Bytes: 12 a pair of items, from the cache. Operations: two comparisons a pair.
KERNEL void order_items(const i64* __restrict__ own, const int* __restrict__ items, const int* __restrict__ chosen,
                        const int* __restrict__ n_items, int* __restrict__ ordered, i64* __restrict__ worth,
                        i64 n_chosen, i64 n_concepts, i64 m, i64 width) {
  const i64 step = i64{gridDim.x} * blockDim.x;
  for (i64 slot = i64{blockIdx.x} * blockDim.x + threadIdx.x; slot < n_chosen * width; slot += step) {
    const i64 at = slot / width, j = slot % width, row = i64{chosen[at]} * 2 * n_concepts;
    const i64 n = n_items[chosen[at]];
    if (j >= n) continue;
    const int item = items[row + j];
    const i64 alone = own[row + item];
    i64 rank = 0;
    for (i64 i = 0; i < n; ++i) {
      const i64 other = own[row + items[row + i]];
      rank += other > alone || (other == alone && i < j);
    }
    ordered[at * width + rank] = item;
    worth[at * m * width + rank] = alone;
  }
}

// all_values, all_gains i64[C, C]; values, gains of count_within -> for ranks i < j, at [i, j]: pairs, what two items
// are worth beyond the sum of both, never where they are of one concept; triples, if m > 2, what of that three may
// share; partners i64[n_chosen, 2, m, width], the sums of the k largest of the former, and of the latter with each
// other. tops i64[2, m - 1, n_chosen, width] is working space.
// Bytes: 48 a pair of items. Operations: about 20.
KERNEL void pair_items(const i64* __restrict__ all_values, const i64* __restrict__ all_gains,
                       const i64* __restrict__ values, const i64* __restrict__ gains, const int* __restrict__ place,
                       const int* __restrict__ chosen, const int* __restrict__ n_items,
                       const i64* __restrict__ offsets, const int* __restrict__ ordered, i64* __restrict__ pairs,
                       i64* __restrict__ triples, i64* __restrict__ partners, i64* __restrict__ tops, i64 n_chosen,
                       i64 n_concepts, i64 m, i64 width) {
  const i64 n_slots = n_chosen * width, step = i64{gridDim.x} * blockDim.x;
  for (i64 slot = i64{blockIdx.x} * blockDim.x + threadIdx.x; slot < n_slots; slot += step) {
    const i64 at = slot / width, j = slot % width, n = n_items[chosen[at]], offset = offsets[at];
    if (j >= n) continue;
    const int* place_of = place + i64{chosen[at]} * (n_concepts + 1);
    const int item = ordered[slot], c = item >> 1;
    const Kept top = {tops + slot, n_slots, m - 1}, other_top = {tops + (m - 1) * n_slots + slot, n_slots, m - 1};
    top.clear();
    other_top.clear();
    for (i64 i = 0; i < j; ++i) {
      const int other = ordered[at * width + i], e = other >> 1;
      i64 pair = 0, triple = 0;
      if (e == c) {
        pair = kNever;
      } else {
        const i64 gain = all_gains[c * n_concepts + e], value = all_values[c * n_concepts + e];
        if (gain || value) {
          const int one = place_of[c], two = place_of[e];
          const i64 cell = offset + (max(one, two) - 1) * n + min(one, two) - 1;
          const i64 within = values[cell], gain_within = gains[cell];
          pair = within - value;  // both are OR: what they share outside is counted once
          if (item & other & 1)
            pair = within;
          else if ((item | other) & 1)
            pair = max(within, pair);
          triple = gain - within;
          top.let_in(pair);
          if (m > 2) other_top.let_in(triple);
        }
      }
      pairs[offset + i * n + j] = pair;
      if (m > 2) triples[offset + i * n + j] = triple;
    }
    i64 sum = 0, other_sum = 0;
    for (i64 k = 0; k < m; ++k) {
      partners[(at * 2 * m + k) * width + j] = sum;
      partners[((at * 2 + 1) * m + k) * width + j] = other_sum;
      if (k == m - 1) break;
      sum += top.at(k);
      other_sum += k * other_top.at(k);
    }
  }
}

// A search of sets, depth first: at each depth one item is chosen, of a higher rank than those before.
struct Sets {
  const i64 *worth, *overlaps, *partners;  // [m, width], [m, width], [2, m, width]
  i64 m, width;

  // At most what item j adds to a set that lacks `left`: its worth, and its interplay with those to come.
  __device__ __forceinline__ i64 hope(i64 depth, i64 left, i64 j) const {
    return worth[depth * width + j] + partners[(left - 1) * width + j] + partners[(m + left - 1) * width + j] +
           (left - 1) * overlaps[depth * width + j];
  }
};

// totals i64[n_formulas, 3], of which the first is the value; bounds i64[n_formulas] -> best i64[n_formulas, 2 C]: for
// each item the most of sets that hold it, no more than bounds. Refined for n_steps steps, then bounded.
// worth and overlaps i64[n_chosen, m, width], the first rows given, and stack i64[n_chosen, 4, m] are working space.
// Bytes and operations: a step is an item that a set of items is tried with: about 80 bytes from the cache and 20
// operations, m times.
KERNEL void search_sets(const i64* __restrict__ totals, const i64* __restrict__ bounds,
                        const int* __restrict__ chosen, const int* __restrict__ n_items,
                        const i64* __restrict__ offsets, const int* __restrict__ ordered,
                        const i64* __restrict__ pairs, const i64* __restrict__ triples,
                        const i64* __restrict__ partners, i64* worth, i64* overlaps, i64* stack, i64* best,
                        i64 n_chosen, i64 n_concepts, i64 m, i64 width, i64 least, i64 n_steps) {
  for (i64 at = first_task(); at < n_chosen; at += task_step()) {
    const i64 formula = chosen[at], n = n_items[formula];
    const Sets sets = {worth + at * m * width, overlaps + at * m * width, partners + at * 2 * m * width, m, width};
    const i64 *pair = pairs + offsets[at], *triple = triples + offsets[at];
    i64 *worth_of = worth + at * m * width, *overlap_of = overlaps + at * m * width;
    i64 *ranks = stack + at * 4 * m, *next = ranks + m, *rests = next + m, *sums = rests + m;
    const int* items = ordered + at * width;
    i64* best_of = best + formula * 2 * n_concepts;
    const auto raise = [&](i64 j, i64 bound) { best_of[items[j]] = max(best_of[items[j]], bound); };
    if (lane_id() == 0) sums[0] = totals[formula * 3];
    i64 steps = 0, depth = 0;
    bool entered = true;
    while (depth >= 0) {
      __syncwarp();
      const i64 left = m - depth;
      if (entered) {
        entered = false;
        const i64 start = depth ? ranks[depth - 1] + 1 : 0, sum = sums[depth];
        const Top top = top_of(left, start, n, [&](i64 j) {
          return worth_of[depth * width + j] == kNever ? kNever : sets.hope(depth, left, j);
        });
        const i64 bound = sum + top.sum, rest = bound - top.least;
        const bool last = left == 1 || steps + n - start > n_steps, ends = bound < least || last;
        steps += n - start;
        if (lane_id() == 0)
          for (i64 i = 0; i < depth; ++i) raise(ranks[i], bound >= least && last ? max(sum, bound) : sum);
        if (bound >= least && last)
          for (i64 j = start + lane_id(); j < n; j += 32)
            if (worth_of[depth * width + j] != kNever) raise(j, min(bound, rest + sets.hope(depth, left, j)));
        if (ends) {
          --depth;
          continue;
        }
        __syncwarp();
        if (lane_id() == 0) {
          rests[depth] = rest;
          next[depth] = start;
        }
        __syncwarp();
      }
      const i64 rest = rests[depth];
      i64 j = -1;
      for (i64 first = next[depth]; first < n; first += 32) {
        const i64 k = first + lane_id();
        const bool good =
            k < n && worth_of[depth * width + k] != kNever && rest + sets.hope(depth, left, k) >= least;
        const u32 good_ones = __ballot_sync(ALL_LANES, good);
        if (!good_ones) continue;
        j = first + __ffsll(i64{good_ones}) - 1;
        break;
      }
      if (j < 0) {
        --depth;
        continue;
      }
      __syncwarp();  // all have read before this changes
      if (lane_id() == 0) {
        ranks[depth] = j;
        next[depth] = j + 1;
        sums[depth + 1] = sums[depth] + worth_of[depth * width + j];
      }
      for (i64 k = j + 1 + lane_id(); k < n; k += 32) {
        i64 most = worth_of[depth * width + k], overlap = 0;
        const i64 together = pair[j * n + k];
        if (most == kNever || together == kNever) {
          most = kNever;
        } else {
          most += together;
          if (m > 2) {
            const i64 shared = triple[j * n + k];
            for (i64 i = 0; i < depth; ++i) {
              const i64 chosen_one = ranks[i];
              most += min(triple[chosen_one * n + j], min(triple[chosen_one * n + k], shared));
            }
            overlap = overlap_of[depth * width + k] + shared;
          }
        }
        worth_of[(depth + 1) * width + k] = most;
        overlap_of[(depth + 1) * width + k] = overlap;
      }
      steps += n - j;
      ++depth;
      entered = true;
    }
    for (i64 j = lane_id(); j < n; j += 32) best_of[items[j]] = min(best_of[items[j]], bounds[formula]);
  }
}
