"""Part of `recsys bench serve`: half of the highest rate for long, with swaps and upserts; memory's slope."""

import time
from typing import Any, Final

import numpy as np

from benchmarks.speed.serve.load import joined
from benchmarks.speed.serve.session import Session
from benchmarks.speed.serve.swap_part import PIECE_S, Swaps, upserting

SHARE: Final = 0.5
WARM_UP_SHARE: Final = 0.2
"""Of the samples at the start, which do not count: caches fill."""


def measure_soak(session: Session) -> dict[str, Any]:
    """Load for `--minutes`, with `--swaps` spread over them; read the memory every few seconds."""
    server, asked, rate = session.server, session.asked, SHARE * session.base_rate()
    lasts_s = 60 * asked.minutes
    at_s, pss_mb, pieces = list[float](), list[float](), []
    swaps = Swaps(server.admin_target, session.shop.versions, asked.swaps, lasts_s / (asked.swaps + 1))
    began = time.perf_counter()
    with upserting(server.target) as upserts:
        swaps.start()
        while swaps.is_alive() or time.perf_counter() - began < lasts_s:
            pieces.append(session.load.open(server.target, rate, PIECE_S))
            at_s.append(time.perf_counter() - began)
            pss_mb.append(server.pss_mb())
        swaps.join()
    swaps.check()
    calls = joined(pieces)
    return {
        "soak": {
            "minutes": (time.perf_counter() - began) / 60,
            "swaps": len(swaps.seconds),
            "upserts": len(upserts),
            "calls": calls.said.sent,
            "failed_calls": calls.num_failed,
            "rate": rate,
            "memory_mb_per_hour": slope_per_hour(np.array(at_s), np.array(pss_mb)),
            "pss_mb": pss_mb,
        }
        | calls.percentiles()
    }


def slope_per_hour(at_s: np.ndarray, values: np.ndarray) -> float:
    """Fit a line to values [N] at seconds [N] by least squares without the warm-up; give its rise an hour."""
    first = int(WARM_UP_SHARE * at_s.size)
    if at_s.size - first < 2:
        return float("nan")
    return 3600 * float(np.polyfit(at_s[first:], values[first:], 1)[0])
