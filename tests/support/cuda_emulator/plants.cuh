// Mistakes planted on purpose, each beside what is right: the emulator must see every one, or it proves nothing. Each
// kernel takes u32[64] a block of 64 threads. "// bug" marks the line that a report must name.

KERNEL void sound(u32* out) {
  SHARED(u32, ones, 64);
  DYNAMIC_SHARED(u32, twos);
  ones[threadIdx.x] = 1;
  __syncwarp();
  twos[threadIdx.x] = 2 * ones[threadIdx.x ^ 1];
  __syncthreads();
  const u32 sum = warp_sum(twos[63 - threadIdx.x]);
  __syncthreads();
  twos[threadIdx.x] = 0;
  if (threadIdx.x % 32 == 0) atomicAdd(out, sum);
}

KERNEL void global_out_of_bounds(u32* out) {
  out[threadIdx.x + 1] = 1;  // bug
}

KERNEL void static_shared_out_of_bounds(u32* out) {
  SHARED(u32, ones, 64);
  ones[threadIdx.x + 1] = 1;  // bug
  __syncthreads();
  out[threadIdx.x] = ones[threadIdx.x];
}

KERNEL void dynamic_shared_out_of_bounds(u32* out) {
  DYNAMIC_SHARED(u32, ones);
  ones[threadIdx.x + 1] = 1;  // bug
  __syncthreads();
  out[threadIdx.x] = ones[threadIdx.x];
}

KERNEL void misaligned_load(u32* out) {
  const u64* words = reinterpret_cast<const u64*>(out);
  const ulonglong2 pair = *reinterpret_cast<const ulonglong2*>(words + 1);  // bug
  if (threadIdx.x == 0) out[0] = static_cast<u32>(pair.x);
}

KERNEL void missing_barrier(u32* out) {
  SHARED(u32, ids, 64);
  ids[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = ids[63 - threadIdx.x];  // bug
}

KERNEL void missing_second_barrier(u32* out) {
  SHARED(u32, ids, 64);
  for (u32 round = 0; round < 2; ++round) {
    ids[threadIdx.x] = threadIdx.x + round;  // bug
    __syncthreads();
    out[threadIdx.x] += ids[63 - threadIdx.x];
  }
}

KERNEL void missing_warp_barrier(u32* out) {
  SHARED(u32, ids, 64);
  ids[threadIdx.x] = threadIdx.x;
  const u32 any = __any_sync(ALL_LANES, threadIdx.x > 0);  // which orders no memory
  out[threadIdx.x] = ids[threadIdx.x ^ 1] + any;           // bug
}

KERNEL void blocks_add_without_atomics(u32* out) {
  __syncthreads();  // which orders no blocks
  if (threadIdx.x == 0) out[0] += 1;  // bug
}

KERNEL void divergent_barrier(u32* out) {
  if (threadIdx.x < 40) __syncthreads();
  out[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1u, 1);
  if (threadIdx.x >= 40) __syncthreads();
}

KERNEL void mismatched_warp_calls(u32* out) {
  if (threadIdx.x & 1)
    out[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1u, 1);
  else
    out[threadIdx.x] = __ballot_sync(ALL_LANES, 1);
}

KERNEL void mask_without_the_caller(u32* out) { out[threadIdx.x] = __ballot_sync(~1u, 1); }

KERNEL void different_masks(u32* out) {
  out[threadIdx.x] = __ballot_sync(threadIdx.x & 1 ? ALL_LANES : ALL_LANES - 2, 1);
}

KERNEL void uninitialised_shared(u32* out) {
  SHARED(u32, zeros, 64);
  if (threadIdx.x) zeros[threadIdx.x] = 0;
  __syncthreads();
  out[threadIdx.x] = zeros[threadIdx.x];
}

KERNEL void too_much_shared(u32* out) {
  SHARED(u32, many, 12288);
  many[threadIdx.x] = 1;
  out[threadIdx.x] = many[threadIdx.x];
}

// What warp calls return, for a test against their definitions.
KERNEL void warp_calls(u32* out) {
  const u32 lane = threadIdx.x % 32;
  u32 value = __shfl_sync(ALL_LANES, lane, 33) == 1;
  value += __shfl_up_sync(ALL_LANES, lane, 3) == (lane < 3 ? lane : lane - 3);
  value += __shfl_down_sync(ALL_LANES, lane, 3) == (lane > 28 ? lane : lane + 3);
  value += __shfl_xor_sync(ALL_LANES, u64{lane} << 40, 7) == u64{lane ^ 7} << 40;
  value += __ballot_sync(ALL_LANES, lane % 2) == 0xaaaaaaaa;
  value += __all_sync(ALL_LANES, lane < 32) && !__all_sync(ALL_LANES, lane < 31);
  value += __any_sync(ALL_LANES, lane == 31) && !__any_sync(ALL_LANES, lane == 32);
  value += __reduce_add_sync(ALL_LANES, lane) == 496 && __reduce_min_sync(ALL_LANES, -int(lane)) == -31;
  value += __reduce_max_sync(ALL_LANES, int(lane)) == 31;
  if (lane < 4) value += __ballot_sync(0xf, 1) == 0xf;  // some of the warp
  out[threadIdx.x] = value;
  if (lane >= 16) return;
  out[threadIdx.x] += __ballot_sync(ALL_LANES, 1) == 0xffff;  // those that have ended are not waited for
}
