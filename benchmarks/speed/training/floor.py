"""What a step cannot be faster than: its matrix products at this machine's best rate, plus its bytes.

`python -m benchmarks.speed.training.floor PRECISION THREADS` prints JSON. The rate is that of one large
square product of the same type; the bytes are those of a row's inputs, and of its embedding rows and their
state, each read and written once, at the rate at which this machine copies.
"""

import json
import statistics
import sys
import time
from typing import Any, Final

import torch

from benchmarks.speed.machine import copy_rate
from benchmarks.speed.training.click_log import COLUMN_SIZES, NUM_NUMBERS, TASKS
from benchmarks.speed.training.click_log_model import DIM, TRUNK, ClickLogModel

GEMM_SIZE: Final = 1024
BYTES_PER_ROW: Final = (
    4 * (len(COLUMN_SIZES) + NUM_NUMBERS + len(TASKS))  # inputs
    + len(COLUMN_SIZES) * (2 * 4 * DIM + 2 * 4)  # rows and their state, read and written
)


def floor(precision: str, threads: int) -> dict[str, Any]:
    """Measure the rates and give the floor of the click log's model, in rows a second."""
    torch.set_num_threads(threads)
    rate, copied = gemm_rate(torch.bfloat16 if precision == "bf16" else torch.float32), copy_rate()
    flop = click_log_flop()
    return {
        "precision": precision,
        "threads": threads,
        "flop_per_row": flop,
        "bytes_per_row": BYTES_PER_ROW,
        "gemm_flop_per_second": rate,
        "copied_bytes_per_second": copied,
        "rows_per_second": 1 / (flop / rate + BYTES_PER_ROW / copied),
    }


def gemm_rate(dtype: torch.dtype, size: int = GEMM_SIZE) -> float:
    """Measure what a large square product of a type reaches here, in operations a second."""
    a = torch.randn(size, size).to(dtype)
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - began)
    return 2.0 * size**3 / statistics.median(seconds[2:])


def click_log_flop() -> float:
    """Count the operations of a row's matrix products, forward and both backward ones.

    Every weight is used once a row. By hand: `matrix_flop` counts the same in a real step.
    """
    named = ClickLogModel().named_parameters()
    used = sum(p.numel() for name, p in named if "bias" not in name and p.dim() > 1)
    mixed = len(TASKS) * TRUNK.num_experts * TRUNK.hidden[-1]
    return 6.0 * (used + mixed)


if __name__ == "__main__":
    print(json.dumps(floor(sys.argv[1], int(sys.argv[2]))))
