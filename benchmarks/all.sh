#!/usr/bin/env bash
# All that a new device is asked for: correctness first, then what is timed.
#
#     benchmarks/all.sh FOLDER [PYTHON]
#
# FOLDER gets the results as JSON and a log. What fails does not stop the rest, and what
# FOLDER has already is not run again: cut off after some minutes, it goes on from there.
# With BUDGET=300 nothing is begun after 300 seconds. Compiled programs are kept.
set -uo pipefail
folder=${1:?give the folder for the results}
python=${2:-python}
mkdir -p "$folder" || exit
folder=$(realpath "$folder")
cd "$(dirname "$0")/.." || exit
export PYTHONUNBUFFERED=1
# Here, not in the scripts: those that time compilation on CPU do it anew.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR-${TMPDIR:-/tmp}/lkdn_jax_compiled}

once() { # NAME SCRIPT ARGUMENT…
    local output=$folder/$1.json
    [ -e "$output" ] && return
    [ "$SECONDS" -lt "${BUDGET:-1000000}" ] && "$python" "benchmarks/$2.py" "${@:3}" --output "$output" || failed=1
}

{
    failed=0
    once check check_device
    for precision in bf16 tf32; do # each beside float32
        for size in 1x180x320 8x180x320 16x48x48; do
            once "inference-$size-$precision" inference \
                --sizes $size --precisions $precision --others
        done
        once "training_step-$precision" training_step --precisions $precision
    done
    exit $failed
} 2>&1 | tee -a "$folder/log.txt"
