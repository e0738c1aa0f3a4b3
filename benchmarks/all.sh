#!/usr/bin/env bash
# All that a new device is asked for: correctness first, then what is timed.
#
#     benchmarks/all.sh FOLDER [PYTHON]
#
# FOLDER gets the results as JSON and a log; what fails does not stop the rest.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "$1") python=${2:-python}
mkdir -p "$folder"
{
    $python benchmarks/check_device.py
    $python benchmarks/training_step.py --output "$folder/training_step.json"
    $python benchmarks/inference.py --sizes 1x180x320 8x180x320 16x48x48 --others \
        --output "$folder/inference.json"
} 2>&1 | tee "$folder/log.txt"
