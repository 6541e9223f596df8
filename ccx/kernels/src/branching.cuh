// Bounds for branch and bound over left-deep formulas. docs/optimal.md says why they hold, ccx/kernels/cpu/branching.py
// computes the same on the CPU, and ccx/kernels/cuda/branching.py launches these kernels one after the other.
//
// A batch holds formulas S of n concepts each, which m more are to follow. Concepts are ranks, 0 .. C - 1. An item is
// an operation that is no AND: 2 c is OR c, 2 c + 1 is AND NOT c. Every array is in row-major order, one row a formula
// first of all; n_formulas or n_chosen says how many.

constexpr i64 kChunkAtoms = 1024;  // what a warp takes at a time

// ---- What concepts share with each other, and with a formula ------------------------------------------------------

struct Scope {
  const i64 *values, *gains;  // i64[C, C]
  const u8* usable;           // [C]
  const i64 *totals, *sums;   // of the formula: [3] value, gain, gain beside the main concept; [3, C + 1] in concepts
  const int* concepts;        // [n] of the formula
  i64 n_concepts, n;

  __device__ __forceinline__ i64 value(i64 c, i64 e) const { return values[c * n_concepts + e]; }
  __device__ __forceinline__ i64 gain(i64 c, i64 e) const { return gains[c * n_concepts + e]; }
  __device__ __forceinline__ i64 shared(i64 c) const { return sums[c]; }
  __device__ __forceinline__ i64 gain_in(i64 c) const { return sums[n_concepts + 1 + c]; }
  __device__ __forceinline__ i64 gain_beside(i64 c) const { return sums[2 * (n_concepts + 1) + c]; }
  __device__ __forceinline__ i64 gain_out(i64 c) const { return gain(c, c) - gain_in(c); }
  __device__ __forceinline__ i64 loss_in(i64 c) const { return gain_in(c) - shared(c); }
  __device__ __forceinline__ i64 loss_out(i64 c) const { return gain_out(c) - value(c, c) + shared(c); }

  __device__ __forceinline__ bool contains(i64 c) const {
    for (i64 j = 0; j < n; ++j)
      if (concepts[j] == c) return true;
    return false;
  }
  __device__ __forceinline__ bool used(i64 c) const { return !usable[c] || contains(c); }

  // At most -value(c and e and not S).
  __device__ __forceinline__ i64 outside(i64 c, i64 e) const {
    const i64 gained = gain(c, e), valued = value(c, e);
    return min(min(gained - valued, min(loss_out(c), loss_out(e))), min(gained, min(gain_in(c), gain_in(e))) - valued);
  }
  // At most value(c and e and S).
  __device__ __forceinline__ i64 within(i64 c, i64 e) const {
    const i64 gained = gain(c, e), valued = value(c, e);
    return min(min(gained, min(gain_in(c), gain_in(e))), valued + min(gained - valued, min(loss_out(c), loss_out(e))));
  }
  // At most what two items are worth together beyond what each is worth alone.
  __device__ __forceinline__ i64 interplay(i64 one, i64 two) const {
    const i64 c = one >> 1, e = two >> 1;
    if (one & two & 1) return within(c, e);
    const i64 out = outside(c, e);
    return (one | two) & 1 ? max(out, within(c, e)) : out;
  }
  // At most what three items, of which c and e are two, are worth beyond their pairs.
  __device__ __forceinline__ i64 overlap(i64 c, i64 e) const {
    const i64 gained = gain(c, e);
    return min(gained, min(gain_out(c), gain_out(e))) + min(gained - value(c, e), min(loss_in(c), loss_in(e)));
  }
};

__device__ __forceinline__ Scope scope_of(const i64* values, const i64* gains, const u8* usable, const i64* totals,
                                          const i64* sums, const int* concepts, i64 n_concepts, i64 n, i64 formula) {
  return {values, gains, usable, totals + formula * 3, sums + formula * 3 * (n_concepts + 1),
          concepts + formula * n, n_concepts, n};
}

// ---- The formulas -------------------------------------------------------------------------------------------------

// atom_starts i64[G + 1], atom_ranks int, atom_values i64[G], in_main u8[G]; concepts int[n_formulas, n], operators
// u8[n_formulas, n - 1] -> inside u8[n_formulas, G], which atoms satisfy a formula; added to totals [n_formulas, 3] and
// sums [n_formulas, 3, C + 1], zeros before: value, gain and gain beside the main concept, whole and in each concept.
// Bytes: 16 an atom, 4 a concept of an atom, from the cache but for the first formula; 1 an atom and formula written.
// Operations: n comparisons a concept of an atom; three atomic additions a concept of an atom that is inside.
KERNEL void begin_formulas(const i64* __restrict__ atom_starts, const int* __restrict__ atom_ranks,
                           const i64* __restrict__ atom_values, const u8* __restrict__ in_main,
                           const int* __restrict__ concepts, const u8* __restrict__ operators, u8* __restrict__ inside,
                           u64* __restrict__ totals, u64* __restrict__ sums, i64 n_formulas, i64 n, i64 n_atoms,
                           i64 n_concepts) {
  const i64 n_chunks = ceil_div(n_atoms, kChunkAtoms), width = n_concepts + 1;
  for (i64 task = first_task(); task < n_formulas * n_chunks; task += task_step()) {
    const i64 formula = task / n_chunks, start = task % n_chunks * kChunkAtoms, end = min(n_atoms, start + kChunkAtoms);
    const int* operands = concepts + formula * n;
    const u8* connectives = operators + formula * (n - 1);
    u64* of_formula = sums + formula * 3 * width;
    u64 value = 0, gain = 0, beside = 0;
    for (i64 atom = start + lane_id(); atom < end; atom += 32) {
      u64 members = 0;  // which operands hold the atom
      for (i64 j = atom_starts[atom]; j < atom_starts[atom + 1]; ++j)
        for (i64 k = 0; k < n; ++k) members |= u64{atom_ranks[j] == operands[k]} << k;
      bool holds = members & 1;
      for (i64 k = 1; k < n; ++k) {
        const bool operand = members >> k & 1;
        const u8 connective = connectives[k - 1];
        holds = connective == kOr ? holds || operand : connective == kAnd ? holds && operand : holds && !operand;
      }
      inside[formula * n_atoms + atom] = holds;
      if (!holds) continue;
      const i64 own = atom_values[atom], positive = max(own, i64{0}), apart = in_main[atom] ? 0 : positive;
      value += own;
      gain += positive;
      beside += apart;
      for (i64 j = atom_starts[atom]; j < atom_starts[atom + 1]; ++j) {
        const int c = atom_ranks[j];
        atomicAdd(of_formula + c, static_cast<u64>(own));
        if (positive) atomicAdd(of_formula + width + c, static_cast<u64>(positive));
        if (apart) atomicAdd(of_formula + 2 * width + c, static_cast<u64>(apart));
      }
    }
    value = warp_sum(value), gain = warp_sum(gain), beside = warp_sum(beside);
    if (lane_id() == 0) {
      atomicAdd(totals + formula * 3, value);
      atomicAdd(totals + formula * 3 + 1, gain);
      atomicAdd(totals + formula * 3 + 2, beside);
    }
  }
}

// -> bounds i64[n_formulas], of completions by items alone; items int[n_formulas, 2 C], those that may occur in one
// that reaches `least`, ascending, n_items int[n_formulas]; own i64[n_formulas, 2 C], what each is worth alone, else
// never; best i64[n_formulas, 2 C], never.
// Bytes: 40 a concept, m + 2 times, from the cache; 36 written. Operations: about 20 a concept, m + 2 times.
KERNEL void gather_items(const i64* __restrict__ values, const i64* __restrict__ gains, const u8* __restrict__ usable,
                         const i64* __restrict__ totals, const i64* __restrict__ sums,
                         const int* __restrict__ concepts, i64* __restrict__ bounds, int* __restrict__ items,
                         int* __restrict__ n_items, i64* __restrict__ own, i64* __restrict__ best, i64 n_formulas,
                         i64 n, i64 n_concepts, i64 m, i64 least, i64 worthwhile) {
  for (i64 formula = first_task(); formula < n_formulas; formula += task_step()) {
    const Scope scope = scope_of(values, gains, usable, totals, sums, concepts, n_concepts, n, formula);
    const Top top = top_of(m, 0, n_concepts, [&](i64 c) {
      return scope.used(c) ? i64{0} : max(scope.gain_out(c), scope.loss_in(c));
    });
    const i64 bound = scope.totals[0] + top.sum, rest = bound - top.least, row = formula * 2 * n_concepts;
    int n_found = 0;
    for (i64 first = 0; first < n_concepts; first += 32) {
      const i64 c = first + lane_id();
      bool adds = false, cuts = false;
      if (c < n_concepts) {
        if (bound >= least && !scope.used(c)) {
          adds = rest + scope.gain_out(c) >= least && scope.gain(c, c) >= worthwhile;
          cuts = rest + scope.loss_in(c) >= least && scope.gain(c, c) - scope.value(c, c) >= worthwhile;
        }
        own[row + 2 * c] = adds ? scope.value(c, c) - scope.shared(c) : kNever;
        own[row + 2 * c + 1] = cuts ? -scope.shared(c) : kNever;
        best[row + 2 * c] = best[row + 2 * c + 1] = kNever;
      }
      const u32 adding = __ballot_sync(ALL_LANES, adds), cutting = __ballot_sync(ALL_LANES, cuts);
      const u32 before = (1u << lane_id()) - 1;
      int at = n_found + __popc(adding & before) + __popc(cutting & before);
      if (adds) items[row + at++] = static_cast<int>(2 * c);
      if (cuts) items[row + at] = static_cast<int>(2 * c + 1);
      n_found += __popc(adding) + __popc(cutting);
    }
    if (lane_id() == 0) {
      bounds[formula] = bound;
      n_items[formula] = n_found;
    }
  }
}

// Where a formula has more than `few` items: partners int[C, k], masses i64[C, k + 1] -> most i64[2, n_formulas, 2 C]:
// of sets that hold item number j, and of those with one partner less. tops i64[2, m - 1, n_formulas, 2 C] is working
// space.
// Bytes and operations: for each of k partners of an item about 100 bytes, from the cache, and 40 operations.
KERNEL void bound_items(const i64* __restrict__ values, const i64* __restrict__ gains, const u8* __restrict__ usable,
                        const i64* __restrict__ totals, const i64* __restrict__ sums,
                        const int* __restrict__ concepts, const int* __restrict__ partners,
                        const i64* __restrict__ masses, const int* __restrict__ items, const int* __restrict__ n_items,
                        const i64* __restrict__ own, i64* __restrict__ most, i64* __restrict__ tops, i64 n_formulas,
                        i64 n, i64 n_concepts, i64 n_partners, i64 m, i64 few) {
  const i64 n_slots = n_formulas * 2 * n_concepts, step = i64{gridDim.x} * blockDim.x;
  for (i64 slot = i64{blockIdx.x} * blockDim.x + threadIdx.x; slot < n_slots; slot += step) {
    const i64 formula = slot / (2 * n_concepts), j = slot % (2 * n_concepts), row = formula * 2 * n_concepts;
    if (n_items[formula] <= few || j >= n_items[formula]) continue;
    const Scope scope = scope_of(values, gains, usable, totals, sums, concepts, n_concepts, n, formula);
    const i64 item = items[slot], c = item >> 1, alone = own[row + item];
    const Kept pairs = {tops + slot, n_slots, m - 1}, triples = {tops + (m - 1) * n_slots + slot, n_slots, m - 1};
    pairs.clear();
    triples.clear();
    for (i64 k = 0; k < n_partners; ++k) {
      const i64 e = partners[c * n_partners + k];
      const bool add = own[row + 2 * e] >= alone, cut = own[row + 2 * e + 1] >= alone;  // pairs count for the lesser
      if (!add && !cut) continue;
      i64 interplay = 0;
      if (add) interplay = max(interplay, scope.interplay(item, 2 * e));
      if (cut) interplay = max(interplay, scope.interplay(item, 2 * e + 1));
      pairs.let_in(interplay);
      triples.let_in(scope.overlap(c, e));
    }
    const i64 others = masses[c * (n_partners + 1) + n_partners];
    for (i64 k = 0; k < m - 1; ++k) {
      pairs.let_in(others);
      triples.let_in(others);
    }
    i64 whole = alone, less = alone;
    for (i64 k = 0; k < m - 1; ++k) {
      whole += pairs.at(k) + k * triples.at(k);
      if (k < m - 2) less += pairs.at(k) + k * triples.at(k);
    }
    most[slot] = whole;
    most[n_slots + slot] = less;
  }
}

// Where a formula has more than `few` items, drop those that no set of up to m may hold and reach `least`; where more
// than `many` are left, give them the bound of all. -> n_items int[n_formulas], how many of the first are left to pair;
// place int[n_formulas, C + 1], zeros before: for each of their concepts, 1, 2 .... marks u8[n_formulas, 2 C] and
// beside i64[n_formulas, 2 C] are working space.
// Bytes and operations: up to 2 m + 2 passes over the items a turn, of 20 bytes from the cache and 40 operations.
KERNEL void sift_items(const i64* __restrict__ values, const i64* __restrict__ gains, const u8* __restrict__ usable,
                       const i64* __restrict__ totals, const i64* __restrict__ sums, const int* __restrict__ concepts,
                       const i64* __restrict__ bounds, const i64* __restrict__ own, const i64* __restrict__ most,
                       int* items, int* n_items, i64* best, u8* marks, i64* beside, int* __restrict__ place,
                       i64 n_formulas, i64 n, i64 n_concepts, i64 m, i64 least, i64 few,
                       i64 many, i64 turns) {
  constexpr u8 kDone = 1, kAlive = 2;  // each item's marks are written and read by one lane alone
  const i64 n_slots = n_formulas * 2 * n_concepts;
  for (i64 formula = first_task(); formula < n_formulas; formula += task_step()) {
    const Scope scope = scope_of(values, gains, usable, totals, sums, concepts, n_concepts, n, formula);
    const i64 row = formula * 2 * n_concepts;
    i64 n_here = n_items[formula];
    if (n_here > few) {
      const auto whole = [&](i64 j) { return marks[row + j] & kDone ? kNever : most[row + j]; };
      for (i64 j = lane_id(); j < n_here; j += 32) marks[row + j] = 0;
      for (i64 turn = 0; turn < turns; ++turn) {
        const i64 chosen = next_most({kHighest, -1}, kNever, 0, n_here, [&](i64 j) {
          return marks[row + j] & kDone ? kNever : own[row + items[row + j]];
        }).at;
        Top top = top_of(m, 0, n_here, whole);
        i64 bound = scope.totals[0] + top.sum, rest = bound - top.least;
        if (chosen < 0 || bound < least) break;
        const bool last = turn == turns - 1;
        const i64 item = items[row + chosen], worth = own[row + item];
        for (i64 j = lane_id(); j < n_here; j += 32) {
          u8 mark = marks[row + j];
          const bool good = !(mark & kDone) && rest + most[row + j] >= least;
          if (last && good) mark |= kAlive;
          if (j == chosen && !last) mark |= kDone;
          marks[row + j] = mark;
          i64 sum = kNever;
          const i64 other = items[row + j];
          if (!last && good && j != chosen && other >> 1 != item >> 1) {
            const i64 overlap = scope.overlap(item >> 1, other >> 1);  // triples of the two and another
            sum = most[n_slots + row + j] + scope.interplay(item, other) + (m - 2) * overlap;
          }
          beside[row + j] = sum;
        }
        if (last) break;
        top = top_of(m - 1, 0, n_here, [&](i64 j) { return beside[row + j]; });
        bound = scope.totals[0] + worth + top.sum, rest = bound - top.least;
        if (bound < least) continue;
        for (i64 j = lane_id(); j < n_here; j += 32)
          if (j == chosen || (beside[row + j] != kNever && rest + beside[row + j] >= least)) marks[row + j] |= kAlive;
      }
      i64 kept = 0;
      for (i64 first = 0; first < n_here; first += 32) {
        const i64 j = first + lane_id();
        const bool alive = j < n_here && marks[row + j] & kAlive;
        const int item = alive ? items[row + j] : 0;
        const u32 living = __ballot_sync(ALL_LANES, alive);
        __syncwarp();  // all are read before any is moved
        if (alive) items[row + kept + __popc(living & ((1u << lane_id()) - 1))] = item;
        kept += __popc(living);
      }
      n_here = kept;
      __syncwarp();
    }
    const bool paired = n_here <= many;
    int n_found = 0;
    for (i64 first = 0; first < n_here; first += 32) {
      const i64 j = first + lane_id();
      if (j < n_here && !paired) best[row + items[row + j]] = bounds[formula];
      const bool fresh = j < n_here && (j == 0 || items[row + j] >> 1 != items[row + j - 1] >> 1);
      const u32 new_ones = __ballot_sync(ALL_LANES, fresh);
      if (fresh && paired)
        place[formula * (n_concepts + 1) + (items[row + j] >> 1)] =
            n_found + __popc(new_ones & ((1u << lane_id()) - 1)) + 1;
      n_found += __popc(new_ones);
    }
    __syncwarp();  // all have read how many there were
    if (lane_id() == 0) n_items[formula] = paired ? static_cast<int>(n_here) : 0;
  }
}

// ---- Completions with an AND --------------------------------------------------------------------------------------

// The most value of formulas of so many concepts: all, and those without the main concept; which concept that is, or
// -1.
struct Known {
  const i64 *most, *most_beside, *most_shared, *most_beside_shared;
  i64 main;
};

// At most what completions by m operations are worth, of which the last AND is AND c.
__device__ __forceinline__ i64 with_and(const Scope& scope, const Known& known, i64 c, i64 gain, i64 gain_beside, i64 m,
                                        bool knows_main) {
  i64 bound = kNever;
  const i64 whole = scope.gain(c, c);
  for (i64 before = 0; before < m; ++before) {
    const i64 after = m - 1 - before, here = min(whole, gain + before * known.most_shared[c]);
    if (known.main < 0) {
      bound = max(bound, here + known.most[after]);
      continue;
    }
    bound = max(bound, here + known.most_beside[after]);
    if (knows_main || c == known.main) continue;
    const i64 apart = min(whole - scope.gain(c, known.main), gain_beside + before * known.most_beside_shared[c]);
    bound = max(bound, apart + known.most[after]);  // the main concept comes after the AND
  }
  return bound;
}

// -> best_ands i64[n_formulas, 2]: of completions by m operations that begin with an AND, the most value and, where m >
// 1, the most bound.
// Bytes: 24 a concept. Operations: about 10 m a concept.
KERNEL void bound_ands(const i64* __restrict__ values, const i64* __restrict__ gains, const u8* __restrict__ usable,
                       const i64* __restrict__ totals, const i64* __restrict__ sums, const int* __restrict__ concepts,
                       const i64* __restrict__ most, const i64* __restrict__ most_beside,
                       const i64* __restrict__ most_shared, const i64* __restrict__ most_beside_shared,
                       i64* __restrict__ best_ands, i64 n_formulas, i64 n, i64 n_concepts, i64 main, i64 m) {
  const Known known = {most, most_beside, most_shared, most_beside_shared, main};
  for (i64 formula = first_task(); formula < n_formulas; formula += task_step()) {
    const Scope scope = scope_of(values, gains, usable, totals, sums, concepts, n_concepts, n, formula);
    const bool knows_main = scope.contains(main);
    i64 value = kNever, bound = kNever;
    for (i64 c = lane_id(); c < n_concepts; c += 32) {
      if (scope.used(c)) continue;
      value = max(value, scope.shared(c));
      if (m > 1) bound = max(bound, with_and(scope, known, c, scope.gain_in(c), scope.gain_beside(c), m, knows_main));
    }
    value = warp_most(value), bound = warp_most(bound);
    if (lane_id() == 0) {
      best_ands[formula * 2] = value;
      best_ands[formula * 2 + 1] = bound;
    }
  }
}

// Raise best i64[n_formulas, 2 C] to the most of completions with an item first and an AND among m more; added to
// evaluations u64[n_formulas], zeros before: how many were bounded.
// Bytes: for each c that may reach `least`, 32 a concept, from the cache. Operations: about 20 m.
KERNEL void raise_for_ands(const i64* __restrict__ values, const i64* __restrict__ gains, const u8* __restrict__ usable,
                           const i64* __restrict__ totals, const i64* __restrict__ sums,
                           const int* __restrict__ concepts, const i64* __restrict__ most,
                           const i64* __restrict__ most_beside, const i64* __restrict__ most_shared,
                           const i64* __restrict__ most_beside_shared, const i64* __restrict__ best_ands,
                           i64* __restrict__ best, u64* __restrict__ evaluations, i64 n_formulas, i64 n, i64 n_concepts,
                           i64 main, i64 m, i64 least) {
  const Known known = {most, most_beside, most_shared, most_beside_shared, main};
  for (i64 task = first_task(); task < n_formulas * n_concepts; task += task_step()) {
    const i64 formula = task / n_concepts, c = task % n_concepts;
    const Scope scope = scope_of(values, gains, usable, totals, sums, concepts, n_concepts, n, formula);
    if (scope.used(c)) continue;
    const i64 gain_out = scope.gain_out(c), value = best_ands[formula * 2], later = best_ands[formula * 2 + 1];
    const bool knows = scope.contains(main) || c == main;
    i64 bound = kNever;
    if ((m == 1 ? value : later) + gain_out >= least) {
      const i64 beside = main < 0 ? gain_out : min(gain_out, scope.gain(c, c) - scope.gain(c, main));
      for (i64 d = lane_id(); d < n_concepts; d += 32) {
        if (d == c || scope.used(d)) continue;
        const i64 both = scope.gain(c, d);
        if (m == 1)  // ((S OR c) AND d)
          bound = max(bound, scope.shared(d) + min(both, min(gain_out, scope.gain_out(d))));
        else
          bound = max(bound, with_and(scope, known, d, scope.gain_in(d) + min(both, gain_out),
                                      scope.gain_beside(d) + min(both, beside), m, knows));
      }
      bound = warp_most(bound);
      if (lane_id() == 0) atomicAdd(evaluations + formula, static_cast<u64>(n_concepts));
    }
    if (lane_id()) continue;
    i64* best_of_c = best + (formula * n_concepts + c) * 2;
    best_of_c[0] = max(best_of_c[0], bound);
    if (later >= least) best_of_c[1] = max(best_of_c[1], later);  // never at m == 1: there the AND comes first
  }
}

// ---- Extensions by one concept ------------------------------------------------------------------------------------

// Whether c stands in order behind the last operand of its run: OR, or AND and then AND NOT, ascending.
__device__ __forceinline__ bool in_order(int op, i64 c, int last_op, i64 last, i64 n) {
  if (op == kOr) return c > last || (n > 1 && last_op != kOr);
  if (op == kAnd) return last_op != kAndNot && (c > last || (n > 1 && last_op != kAnd));
  return c > last || last_op != kAndNot;
}

// At most what a formula of such gains is worth with m more operations, as those are a formula of their own beside it.
__device__ __forceinline__ i64 continued(const Scope& scope, const Known& known, i64 gain, i64 gain_beside,
                                         i64 gain_main, i64 m, bool knows_main) {
  if (known.main < 0) return gain + known.most[m];
  i64 bound = gain + known.most_beside[m];
  if (knows_main) return bound;
  bound = max(bound, gain_beside + known.most[m]);
  for (i64 before = 0; before < m; ++before) {  // AND main, after so many others
    const i64 here =
        min(scope.gain(known.main, known.main), gain_main + before * known.most_shared[known.main]);
    bound = max(bound, here + known.most_beside[m - 1 - before]);
  }
  return bound;
}

// operators u8[n_formulas, n - 1], limits i64[n_formulas], what is known of all completions -> bounds i64[n_formulas,
// C, 3] of the completions of (S op c); never where none reaches `least`, or where it is another formula's. Extensions
// in order are added to evaluations.
// Bytes: 80 a concept, 24 written. Operations: about 30 + 10 m a concept.
KERNEL void bound_extensions(const i64* __restrict__ values, const i64* __restrict__ gains,
                             const u8* __restrict__ usable, const i64* __restrict__ totals,
                             const i64* __restrict__ sums, const int* __restrict__ concepts,
                             const i64* __restrict__ most, const i64* __restrict__ most_beside,
                             const i64* __restrict__ most_shared, const i64* __restrict__ most_beside_shared,
                             const i64* __restrict__ best, const u8* __restrict__ operators,
                             const i64* __restrict__ limits, i64* __restrict__ bounds, u64* __restrict__ evaluations,
                             i64 n_formulas, i64 n, i64 n_concepts, i64 main, i64 m, i64 least, i64 worthwhile) {
  const Known known = {most, most_beside, most_shared, most_beside_shared, main};
  const i64 step = i64{gridDim.x} * blockDim.x;
  for (i64 task = i64{blockIdx.x} * blockDim.x + threadIdx.x; task < n_formulas * n_concepts; task += step) {
    const i64 formula = task / n_concepts, c = task % n_concepts;
    const Scope scope = scope_of(values, gains, usable, totals, sums, concepts, n_concepts, n, formula);
    i64* found = bounds + task * 3;
    found[kOr] = found[kAnd] = found[kAndNot] = kNever;
    if (scope.used(c)) continue;
    const i64 last = scope.concepts[n - 1];
    const int last_op = n > 1 ? operators[formula * (n - 1) + n - 2] : -1;
    const bool knows = scope.contains(main) || c == main;
    const i64 value = scope.totals[0], gain = scope.totals[1], beside = scope.totals[2];
    const i64 gain_out = scope.gain_out(c), loss = scope.loss_in(c);
    u64 n_tried = 0;
    for (int op = 0; op < 3; ++op) {
      if (!in_order(op, c, last_op, last, n)) continue;
      ++n_tried;
      i64 limit = limits[formula], effect, new_gain, new_beside, new_main;
      if (op == kOr) {
        limit = min(limit, best[task * 2]);
        effect = gain_out;
        new_gain = gain + gain_out;
        new_beside = beside + (main < 0 ? gain_out : min(gain_out, scope.gain(c, c) - scope.gain(c, main)));
        new_main = gain - beside + (main < 0 ? 0 : min(gain_out, scope.gain(c, main)));
      } else if (op == kAnd) {
        effect = gain - value - loss;
        new_gain = scope.gain_in(c);
        new_beside = scope.gain_beside(c);
        new_main = new_gain - new_beside;
      } else {
        limit = min(limit, best[task * 2 + 1]);
        effect = loss;
        new_gain = gain - scope.gain_in(c);
        new_beside = beside - scope.gain_beside(c);
        new_main = new_gain - new_beside;
      }
      if (limit < least || effect < worthwhile) continue;
      limit = min(limit, continued(scope, known, new_gain, new_beside, new_main, m - 1, knows));
      if (limit >= least) found[op] = limit;
    }
    atomicAdd(evaluations + formula, n_tried);
  }
}

// ---- Extensions by two concepts, counted --------------------------------------------------------------------------

// extensions int[n_extensions, 3] of formula, c, op; starts, stops i64[C], posted int: each concept's atoms -> added to
// joint u64[n_extensions, C + 1], zeros before: the value of what c adds to the formula (OR), or shares with it, in
// each concept, and to changes u64[n_extensions] that of all of it.
// Bytes: 21 an atom of c, 4 a concept of an atom. Operations: an atomic addition a concept of an atom that counts.
KERNEL void joint_values(const i64* __restrict__ starts, const i64* __restrict__ stops, const int* __restrict__ posted,
                         const i64* __restrict__ atom_starts, const int* __restrict__ atom_ranks,
                         const i64* __restrict__ atom_values, const u8* __restrict__ inside,
                         const int* __restrict__ extensions, u64* __restrict__ joint, u64* __restrict__ changes,
                         i64 n_extensions, i64 n_atoms, i64 n_concepts) {
  for (i64 task = first_task(); task < n_extensions; task += task_step()) {
    const i64 formula = extensions[task * 3], c = extensions[task * 3 + 1];
    const bool wanted = extensions[task * 3 + 2] != kOr;
    u64 change = 0;
    for (i64 j = starts[c] + lane_id(); j < stops[c]; j += 32) {
      const i64 atom = posted[j];
      if (inside[formula * n_atoms + atom] != wanted) continue;
      const u64 value = atom_values[atom];
      change += value;
      for (i64 k = atom_starts[atom]; k < atom_starts[atom + 1]; ++k)
        atomicAdd(joint + task * (n_concepts + 1) + atom_ranks[k], value);
    }
    change = warp_sum(change);
    if (lane_id() == 0) changes[task] = change;
  }
}

// Completions ((S op c) op d), one row of d for each extension (S op c).
struct Completions {
  const i64 *values, *gains;
  const u8* usable;
  const i64 *totals, *sums;
  const int *concepts, *extensions;
  const i64 *joint, *changes;
  i64 n_rows, n, n_formula, least;  // n concepts d, of which a row has so many entries
  int* found;

  __device__ __forceinline__ bool passes(i64 row, i64 d, int second) const {
    const i64 formula = extensions[row * 3], c = extensions[row * 3 + 1];
    const int first = extensions[row * 3 + 2];
    const Scope scope = scope_of(values, gains, usable, totals, sums, concepts, n, n_formula, formula);
    if (d == c || scope.used(d) || !in_order(second, d, first, c, n_formula + 1)) return false;
    const i64 added = joint[row * (n + 1) + d], change = changes[row], value = scope.totals[0];
    const i64 both = first == kAnd ? added : first == kOr ? scope.shared(d) + added : scope.shared(d) - added;
    const i64 total = first == kAnd ? change : first == kOr ? value + change : value - change;
    const i64 reached = second == kAnd ? both : second == kOr ? total + scope.value(d, d) - both : total - both;
    return reached >= least;
  }
  __device__ __forceinline__ void write(i64 at, i64 row, i64 d, int second) const {
    found[at * 3] = static_cast<int>(row);
    found[at * 3 + 1] = static_cast<int>(d);
    found[at * 3 + 2] = second;
  }
};

// extensions, joint and changes as above -> counts i64[n_extensions] of completions that reach `least`.
// Bytes: 24 a concept and extension. Operations: about 20, thrice.
KERNEL void count_completions(const i64* __restrict__ values, const i64* __restrict__ gains,
                              const u8* __restrict__ usable, const i64* __restrict__ totals,
                              const i64* __restrict__ sums, const int* __restrict__ concepts,
                              const int* __restrict__ extensions, const i64* __restrict__ joint,
                              const i64* __restrict__ changes, i64* __restrict__ counts, i64 n_extensions, i64 n,
                              i64 n_concepts, i64 least) {
  const Completions table = {values, gains,   usable,       totals,     sums, concepts, extensions,
                             joint,  changes, n_extensions, n_concepts, n,    least,    nullptr};
  count_entries(table, counts);
}

// starts i64[n_extensions] -> found int[sum of counts, 3] of extension, d, op. Bytes and operations: the same, 12 a
// completion found.
KERNEL void list_completions(const i64* __restrict__ values, const i64* __restrict__ gains,
                             const u8* __restrict__ usable, const i64* __restrict__ totals,
                             const i64* __restrict__ sums, const int* __restrict__ concepts,
                             const int* __restrict__ extensions, const i64* __restrict__ joint,
                             const i64* __restrict__ changes, const i64* __restrict__ starts, int* __restrict__ found,
                             i64 n_extensions, i64 n, i64 n_concepts, i64 least) {
  const Completions table = {values, gains,   usable,       totals,     sums, concepts, extensions,
                             joint,  changes, n_extensions, n_concepts, n,    least,    found};
  list_entries(table, starts);
}
