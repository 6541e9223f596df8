#!/usr/bin/env bash
# One visit to a GPU, what matters most first, within $TOTAL seconds: on a machine with Python, CuPy, numba, pytest and
# Hypothesis, where nothing can be installed; with torch, nvcc, compute-sanitizer and ncu if they are there.
#   OUT=gpu-day bash benchmarks/gpu_day.sh          straight from the source tree; ccx need not be installed
#   CCX_DAY_EMULATED=1 CCX_DAY_SAMPLES=40 CCX_DAY_UNITS=4 bash benchmarks/gpu_day.sh          where there is no GPU
# Every step has a time of its own, and a log in $OUT: one that fails, or runs over, costs itself alone.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
: "${OUT:=gpu-day}" "${PY:=python3}" "${CCX_DAY_EMULATED:=0}"
if ((CCX_DAY_EMULATED)); then slower=10; else slower=1; fi
: "${TOTAL:=$((530 * slower))}"
: "${DATA:=${TMPDIR:-/tmp}/ccx-gpu-day}"
mkdir -p "$OUT" "$DATA"
export OUT DATA CCX_DAY_EMULATED PYTHONPATH="$PWD" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CCX_HYPOTHESIS=quick
export NUMBA_CACHE_DIR="$DATA/numba" CUPY_CACHE_DIR="$DATA/cupy"
DAY=benchmarks/gpu_day.py
SECONDS=0
say() { echo "$*" | tee -a "$OUT/summary.txt"; }

step() { # name, seconds at most, log, command ...
  local name=$1 limit=$(($2 * slower)) log=$3 left=$((TOTAL - SECONDS)) began=$SECONDS rc; shift 3
  if ((left < 8)); then say "$name: left out, no time"; return 1; fi
  ((limit > left)) && limit=$left
  { echo "=== $name ($limit s at most, at $SECONDS s)"; timeout -k 3 "$limit" "$@"; } >>"$OUT/$log" 2>&1; rc=$?
  say "$name: rc=$rc, $((SECONDS - began)) s$( ((rc == 124 || rc == 137)) && echo ' RAN OVER')"
  return $rc
}
finish() { # name, process, seconds at most: wait for what goes on beside
  local left=$((TOTAL - SECONDS)) limit=$(($3 * slower))
  ((limit > left)) && limit=$left
  timeout "$limit" tail --pid="$2" -f /dev/null
  if kill -0 "$2" 2> /dev/null; then say "$1: still goes on at $SECONDS s"; else wait "$2"; say "$1: rc=$?, at $SECONDS s"; fi
}
have() { ((!CCX_DAY_EMULATED)) && command -v "$1" > /dev/null; }

# What the host does alone goes on beside the first steps.
if have nvcc; then nice -n 5 "$PY" "$DAY" fatbins > "$DATA/fatbins.log" 2>&1 & fatbins=$!; fi
nice -n 8 "$PY" "$DAY" warm > "$DATA/warm.log" 2>&1 & warm=$!  # numba compiles: half a minute
nice -n 10 "$PY" "$DAY" prepare > "$DATA/prepare.log" 2>&1 & prepare=$!
trap 'kill ${fatbins:-} $warm $prepare 2> /dev/null' EXIT

# 1. What is there; whether floats are the CPU's; what calls of CuPy cost.
have nvidia-smi && step facts 20 facts.txt nvidia-smi \
  --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm --format=csv
step sanity 60 facts.txt "$PY" "$DAY" sanity
# 2. Results are the CPU's: the tests for a GPU, on kernels of both compilers.
if [ -n "${fatbins:-}" ]; then finish fatbins "$fatbins" 60; fi
finish warm $warm 60
if ((CCX_DAY_EMULATED)); then tests="tests/benchmarks/test_gpu_benchmark.py tests/kernels/cuda/test_gpu.py"; else tests="-m gpu tests/kernels/cuda/test_gpu.py"; fi
step tests 200 tests.txt "$PY" -m pytest $tests -q -p no:cacheprovider --durations=8 -W default
# 3. Memory and races, on a few samples.
for tool in memcheck racecheck; do
  have compute-sanitizer && step $tool 45 sanitizer.txt \
    compute-sanitizer --tool $tool --print-limit 20 --error-exitcode 9 "$PY" "$DAY" small
done
((CCX_DAY_EMULATED)) && step small 200 sanitizer.txt "$PY" "$DAY" small
# 4. Kernels and a layer, at full size.
finish prepare $prepare 60; cat "$DATA"/*.log >> "$OUT/facts.txt"
step table 95 kernels.md "$PY" "$DAY" table
step layer 75 layer.md "$PY" "$DAY" layer
CUPY_CUDA_PER_THREAD_DEFAULT_STREAM=1 step streams 45 layer.md "$PY" "$DAY" streams
# 5. What binds the kernels that cost most.
have ncu && step ncu 60 ncu.txt ncu --clock-control none --launch-count 12 \
  -k 'regex:range_histogram|formula_counts|conjunction_counts|inscribed_rectangles|intersection_counts|estimate_occurrences' \
  --section SpeedOfLight --section Occupancy --section SchedulerStats --section WarpStateStats \
  --section MemoryWorkloadAnalysis "$PY" "$DAY" profile
((CCX_DAY_EMULATED)) && step profile 60 ncu.txt "$PY" "$DAY" profile
say "done at $SECONDS s"
tail -n 40 "$OUT/summary.txt" "$OUT/kernels.md" "$OUT/layer.md" 2> /dev/null
