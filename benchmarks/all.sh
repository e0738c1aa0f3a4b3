#!/usr/bin/env bash
# All that a new device is asked for: correctness first, then what is timed.
#
#     benchmarks/all.sh FOLDER [PYTHON]
#
# FOLDER gets the results as JSON and a log. What fails does not stop the rest, and what
# FOLDER has already is not run again: cut off after some minutes, it goes on from there.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "$1") python=${2:-python}
mkdir -p "$folder"
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR-/tmp/lkdn_jax-compiled}

once() { # NAME SCRIPT ARGUMENT…
    local output=$folder/$1.json
    [ -e "$output" ] || $python "benchmarks/$2.py" "${@:3}" --output "$output"
}

{
    once check check_device
    for precision in bf16 tf32; do # each beside float32
        once "inference-$precision" inference --precisions $precision --others \
            --sizes 1x180x320 8x180x320
        once "training_step-$precision" training_step --precisions $precision
    done
    once inference-patches inference --sizes 16x48x48
} 2>&1 | tee -a "$folder/log.txt"
