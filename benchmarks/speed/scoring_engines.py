"""What scoring a request's candidates takes, part by part and engine by engine, beside a floor.

`python -m benchmarks.speed.scoring_engines --json FILE`: random weights, the shop's features, 8 experts, 50
events, 64 dimensions of the embedding, one thread. `processor_ms` and `wall_ms` are medians; on a machine
that others use, only the former means something. `floor_ms` is the network's matrix products at the rate of
a large product, plus its bytes at the rate of a large copy, both measured in turns with the rest. bfloat16 is
timed where the processor multiplies it; its `difference` is the largest of a logit from eager's.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.speed.random_scorer import Request, random_request, random_scorer, shop_of
from benchmarks.speed.training.matrix_work import matrix_flop
from recsys.config import build_fusion
from recsys.device import CPU, has_fast_bf16
from recsys.model.engines import bfloat16, bfloat16_trunks, eager
from recsys.model.scorer import Scorer

CANDIDATES: Final = (50, 200, 500, 1000)
GEMM_SIZE: Final = 1024
GEMM, COPY = "gemm", "copy"


def measure_scoring(items: int, repeats: int, experts: int = 8, embedding_dim: int = 64) -> dict[str, Any]:
    """Time a request of each number of candidates, as many as there are items at most."""
    torch.set_num_threads(1)
    scorer = random_scorer(shop_of(experts, embedding_dim), items)
    numbers = [number for number in CANDIDATES if number <= items]
    return {
        "items": items,
        "experts": experts,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "fast_bfloat16": has_fast_bf16(CPU),
        "packed_row_bytes": scorer.items.packed_IW[0].nbytes,
        "candidates": {n: _measure(scorer, random_request(scorer, n), repeats) for n in numbers},
    }


def _measure(scorer: Scorer, request: Request, repeats: int) -> dict[str, Any]:
    fusion = build_fusion(scorer.tasks, scorer.bundle.config.fusion)
    with torch.no_grad():
        user = scorer.user_side(request.user)
        inputs = scorer.candidate_inputs(user, request.context, request.rows)
        logits = scorer.logits(user, request.context, request.rows)
        predictions = scorer.calibrated(logits)
        square, source, target = torch.randn(3, GEMM_SIZE, GEMM_SIZE)
        rounded = [bfloat16(scorer.network), bfloat16_trunks(scorer.network)] if has_fast_bf16(CPU) else []
        engines = {engine.name: engine for engine in (eager(scorer.network), *rounded) if engine}
        calls: dict[str, Callable[[], object]] = {
            "user_side": partial(scorer.user_side, request.user),
            "inputs": partial(scorer.candidate_inputs, user, request.context, request.rows),
            "calibration": partial(scorer.calibrated, logits),
            "fusion": partial(fusion.score, predictions),
            **{name: partial(engine.run, *inputs.tensors) for name, engine in engines.items()},
            GEMM: partial(torch.mm, square, square),
            COPY: partial(target.copy_, source),
        }
        flop = matrix_flop(calls["eager"])
        wanted = engines["eager"].run(*inputs.tensors)
        apart = {n: float((e.run(*inputs.tensors) - wanted).abs().max()) for n, e in engines.items()}
    times = _in_turns(calls, repeats)
    rate = 2.0 * GEMM_SIZE**3 / times.pop(GEMM)["processor_ms"]  # operations in a millisecond
    copied = source.nbytes / times.pop(COPY)["processor_ms"]
    first_bytes = 2 * 4 * len(request.rows) * inputs.starts_PO.shape[1]  # written and read
    num_bytes = first_bytes + sum(tensor.nbytes for tensor in inputs.tensors)
    return {
        "floor_ms": flop / rate + num_bytes / copied,
        "flop": flop,
        "gemm_gflops": rate / 1e6,
        "parts": {name: found for name, found in times.items() if name not in engines},
        "engines": {name: {**times[name], "difference": apart[name]} for name in engines},
    }


def _in_turns(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Time calls one after the other, again and again, so that a busy neighbour meets all of them."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    with torch.inference_mode():
        for _ in range(repeats + 2):
            for name, call in calls.items():
                wall, own = time.perf_counter(), time.thread_time()
                call()
                times[name].append((time.thread_time() - own, time.perf_counter() - wall))
    found = {}
    for name, pairs in times.items():
        own_s, wall_s = (statistics.median(values) for values in zip(*pairs[2:], strict=True))
        found[name] = {"processor_ms": 1000 * own_s, "wall_ms": 1000 * wall_s}
    return found


def main() -> None:
    """Parse the arguments and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--json", type=Path, help="write the figures there; default: standard output")
    args = parser.parse_args()
    text = json.dumps(measure_scoring(args.items, args.repeats), indent=1) + "\n"
    if args.json:
        args.json.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
