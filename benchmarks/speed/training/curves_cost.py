"""What curves cost a fit: `python -m benchmarks.speed.training.curves_cost`.

One cold start of the shop's model, one thread, TensorBoard on. The time inside each call of the recorder is
taken, so no two runs are compared. One line of JSON: milliseconds of a step, a point and a look (medians) and
of what is kept at a step (mean); and what the default settings make of them, as a share of a step.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.speed.shop_days import last_days, shop_log
from recsys.config import TrainingConfig, default_config
from training.curves import RunPlace
from training.curves.recorder import Curves, Recorder
from training.host_choice import HostChoice
from training.threads import use_threads
from training.train import train
from training.trainer.moment import Moment, Progress
from training.trainer.train_log import TrainLog

EVERY = 5
"""Steps between points, and between looks: more often than by default, to have many of each."""


class TimedRecorder(Recorder):
    """Keeps the seconds of its own calls."""

    def __init__(self, *args: Any) -> None:
        """Start as a recorder does."""
        super().__init__(*args)
        self.seconds: dict[str, list[float]] = {"look": [], "point": [], "keep": []}

    def before_step(self, moment: Moment) -> None:
        """Time a look."""
        began, due = time.perf_counter(), self.dense is not None and moment.step % EVERY == 0
        super().before_step(moment)
        if due:
            self.seconds["look"].append(time.perf_counter() - began)

    def on_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Time the keeping of losses."""
        began = time.perf_counter()
        super().on_losses(step, losses)
        self.seconds["keep"].append(time.perf_counter() - began)

    def after_step(self, progress: Progress) -> None:
        """Time a point, or what is kept for one."""
        began = time.perf_counter()
        super().after_step(progress)
        due = (progress.step + 1) % EVERY == 0
        self.seconds["point" if due else "keep"].append(time.perf_counter() - began)


def main() -> None:
    """Print the figures."""
    config = default_config()
    use_threads(1)
    with shop_log() as (log, stages), tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        days = last_days(log, config, stages)
        place = RunPlace(runs=Path(folder), name="bench", about={})
        curves = Curves(writers=("tensorboard",), place=place, write_every=EVERY, probe_every=EVERY)
        periods = {task.name: (0, len(days) - 1) for task in config.tasks}
        recorder = TimedRecorder(curves, config.tasks, print)
        with recorder:
            made = train(
                days, periods, config, None, 1, watchers=[recorder], choice=HostChoice(precision="fp32")
            ).log
    print(json.dumps(figures(made, recorder.seconds, config.training)))


def figures(made: TrainLog, seconds: Mapping[str, list[float]], training: TrainingConfig) -> dict[str, Any]:
    """Give milliseconds, and the share of the default settings."""
    whole = [b - a for a, b in zip(made.ends, made.ends[1:], strict=False)]
    plain = [s for i, s in enumerate(whole, start=1) if i % EVERY and (i + 1) % EVERY]
    step, keep = median(plain), mean(seconds["keep"]) * 2
    look, point = median(seconds["look"]), median(seconds["point"])
    each = keep + point / training.write_every + look / training.probe_every
    found = {"step_ms": step, "keep_ms": keep, "point_ms": point, "look_ms": look}
    return {name: round(1000 * s, 2) for name, s in found.items()} | {
        "steps": made.steps, "share_by_default": round(each / step, 4)
    }  # fmt: skip


if __name__ == "__main__":
    main()
