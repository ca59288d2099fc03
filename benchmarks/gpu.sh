#!/bin/sh
# Measures training and scoring on a GPU, in under six minutes, with python3, torch and numpy alone; no network.
# It reads a file made beforehand: recsys bench gpu-inputs gpu-inputs.npz
#   benchmarks/gpu.sh --inputs gpu-inputs.npz [--json FILE] [--wheels FOLDER] [--device cpu] [--part NAME]
# What the figures mean: docs/gpu.md.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec python3 -m benchmarks.gpu "$@"
