"""Six days of the simulated shop, built for the benches of training."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features.build import build_snapshots
from features.days import Days
from recsys.config import RunConfig
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import write_log
from recsys.simulator.shop import Shop
from recsys.stages import Stages
from training.threads import use_threads


@contextmanager
def shop_log(seed: int = 0, log: Path | None = None) -> Iterator[tuple[InteractionLog, Stages]]:
    """Give a log and a place for its stages, in a temporary folder. Args: log: one to use instead."""
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch:
        own = InteractionLog(log or Path(scratch) / "log")
        if log is None:
            simulate_days(own, ShopDials(days=6), seed)
        yield own, Stages(Path(scratch) / "stages")


@contextmanager
def built_days(config: RunConfig) -> Iterator[Days]:
    """Build the shop's snapshots, with the threads that training would have."""
    use_threads(config.training.threads)
    with shop_log() as (log, stages):
        yield last_days(log, config, stages)


def last_days(log: InteractionLog, config: RunConfig, stages: Stages) -> Days:
    """Build the snapshots up to the log's last day."""
    return build_snapshots(log, log.require_days("impressions")[-1], config, stages)


def simulate_days(log: InteractionLog, dials: ShopDials, seed: int) -> None:
    """Write a shop's log."""
    for _ in write_log(Shop.from_seed(dials, seed), log):
        pass
