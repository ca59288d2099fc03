"""Part of `recsys bench serve`: more calls than the server holds, each with a deadline of 100 ms."""

from typing import Any, Final

import numpy as np

from benchmarks.speed.serve.load import Calls
from benchmarks.speed.serve.session import Session

DEADLINE_S: Final = 0.1
FACTORS: Final = {"peak": 1.0, "goodput_ratio": 2.0, "goodput_ratio_5x": 5.0}


def measure_overload(session: Session) -> dict[str, Any]:
    """Send the highest rate, twice it and five times it; count answers in time, and time the refusals.

    The ratios are of the goodput at the highest rate, or at twice it where that is more.
    """
    rate, runs = session.base_rate(), dict[str, Calls]()
    for name, factor in FACTORS.items():
        runs[name] = session.load.open(
            session.server.target, factor * rate, session.asked.seconds, DEADLINE_S
        )
    goodput = {name: run.goodput(DEADLINE_S) for name, run in runs.items()}
    peak = max(goodput["peak"], goodput["goodput_ratio"])
    shed_s = runs["goodput_ratio"].shed_s
    return {
        "overload": {
            "goodput_ratio": goodput["goodput_ratio"] / peak if peak else None,
            "goodput_ratio_5x": goodput["goodput_ratio_5x"] / peak if peak else None,
            "shed_ms": 1000 * float(np.median(shed_s)) if shed_s.size else None,
            "deadline_ms": 1000 * DEADLINE_S,
            "peak_per_s": peak,
            "runs": {name: _said(run) for name, run in runs.items()},
        }
    }


def _said(run: Calls) -> dict[str, Any]:
    return {
        "calls_per_s": run.said.sent / run.seconds,
        "goodput": run.goodput(DEADLINE_S),
        "statuses": run.statuses(),
        "generator_cores": run.generator_cores,
        "sent_late_p99_ms": run.said.late_ms,
    }
