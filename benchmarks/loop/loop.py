"""`recsys bench loop`: nights that serve their own lists and learn from them, beside one that never does.

    the shop's own days ─▶ night ─▶ verdict ─▶ the live bundle serves the next day ─▶ its log ─▶ night ─▶ …

The same requests come in both worlds; the second keeps the first night's bundle, and its users see its lists.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.commit import commit
from benchmarks.lists.shop_night import check_valued
from benchmarks.lists.true_value import measure_hash
from benchmarks.loop.serve_day import DayServer
from features.build import build_snapshots
from recsys.bundle import load_bundle
from recsys.config import RunConfig, build_fusion
from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.options import DayRange
from recsys.registry import Registry
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import DayTables, LogCounts, simulate_day, write_day, write_log
from recsys.simulator.shop import Shop
from recsys.stages import Stages
from recsys.user_key import PUBLIC, write_user_key
from training.night.night import NightResult
from training.night.nights import run_nights
from training.predict import BundlePredictor


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedDay:
    """What one day's lists were worth."""

    day: date
    value: np.ndarray
    """[R]: true value of each request's page, as in `recsys bench lists`."""
    expected_click: float
    """Mean prediction of what was shown."""
    observed_click: float
    true_click: float
    """Mean chance of a click, by the shop's truth."""
    new_shown: float
    """Share of places that show items which came after the first night."""
    new_offered: float
    """Share of the day's items that came after it: those of the day itself are not listed yet."""


class World:
    """A log that grows by the lists of its own live bundle."""

    def __init__(self, shop: Shop, config: RunConfig, folder: Path, seed: int) -> None:
        """Write the days that the shop's own policy served."""
        self.shop, self.config, self.seed = shop, config, seed
        self.log, self.runs = InteractionLog(folder / "log"), folder / "runs"
        write_user_key(self.runs, PUBLIC)
        self._undelivered, self.reasons = pl.DataFrame(), "no night has been run"
        for _ in write_log(shop, self.log):
            pass

    @property
    def registry(self) -> Registry:
        """Give the registry of its nights."""
        return Registry(self.runs)

    def night(self, day: date) -> str:
        """Run the night of a day; give its verdict."""
        result = next(iter(run_nights(self.config, self.log.root, self.runs, DayRange(day, day))))
        assert isinstance(result, NightResult)
        self.reasons = "; ".join(result.reasons)
        return str(result.verdict)

    def serve(self, day: date) -> ServedDay:
        """Serve a day with what is live, and write its log.

        Raises: ConfigError when nothing is live.
        """
        registry = self.registry
        live = registry.current()
        if live is None:
            raise ConfigError(
                f"no bundle is live on {day} ({self.reasons}); give the first night more --users or --days"
            )
        before = day - timedelta(days=1)
        days = build_snapshots(self.log, before, self.config, Stages(self.runs / "stages"))
        server = DayServer(
            shop=self.shop,
            day=day,
            previous=days[days.last],
            predictor=BundlePredictor(load_bundle(registry.require(live))),
            policy=self.config.policy,
            seed=self.seed,
        )
        tables = simulate_day(self.shop, day, server)
        self._undelivered = write_day(self.shop, self.log, day, tables, self._undelivered, LogCounts())
        return _served(self.shop, self.config, day, tables, float(server.expected_click.mean()))


def measure_loop(config: RunConfig, dials: ShopDials, nights: int, seed: int) -> dict[str, Any]:
    """Run both worlds; give the tree of the JSON.

    Raises: ConfigError when the truth cannot value lists of the config, or no night goes live.
    """
    check_valued(config)
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch:
        shop = Shop.from_seed(dials, seed)
        loop = World(shop, config, Path(scratch) / "loop", seed)
        verdicts = [_told(dials.last_day, loop)]
        shutil.copytree(loop.runs.parent, Path(scratch) / "never")
        never = World.__new__(World)
        never.__dict__ |= loop.__dict__
        never.log = InteractionLog(Path(scratch) / "never" / "log")
        never.runs = Path(scratch) / "never" / "runs"
        pairs = list(_days(loop, never, dials.last_day, nights, verdicts))
    return {
        "seed": seed,
        "dials": dials.model_dump(mode="json", include={"users", "items", "days"}),
        "nights": [
            {
                **_day_tree(own),
                "verdict": verdict,
                "reasons": reasons,
                "above_never_retrained": above(own, other),
            }
            for (own, other), (verdict, reasons) in zip(pairs, verdicts, strict=True)
        ],
        "never_retrained": [_day_tree(other) for _, other in pairs],
        "commit": commit(),
        "measure": measure_hash(),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def _days(
    loop: World, never: World, last_day: date, nights: int, verdicts: list[tuple[str, str]]
) -> Iterator[tuple[ServedDay, ServedDay]]:
    for number in range(nights):
        night = last_day + timedelta(days=number)
        if number:
            verdicts.append(_told(night, loop))
        day = night + timedelta(days=1)
        yield loop.serve(day), never.serve(day)


def _told(night: date, world: World) -> tuple[str, str]:
    """Run a night, and say on stderr how it ended: a run takes minutes. Give its verdict and the reasons."""
    verdict = world.night(night)
    sys.stderr.write(f"loop: night {night}: {verdict}: {world.reasons}\n")
    return verdict, world.reasons


def _served(shop: Shop, config: RunConfig, day: date, tables: DayTables, expected: float) -> ServedDay:
    weights = {task: term.weight for task, term in build_fusion(config.tasks, config.fusion).terms.items()}
    shown, truth = tables.impressions, tables.truth
    seen = shop.truth.examination(shown["position"].cast(pl.Int64).to_numpy())
    of_place = (
        weights["click"] * truth["p_click"].to_numpy()
        + weights["purchase"] * truth["p_purchase"].to_numpy()
        + weights["rating"] * seen * truth["expected_rating"].to_numpy()
    )
    clicks = tables.feedback.filter(pl.col("kind") == "click").height
    return ServedDay(
        day=day,
        value=of_place.reshape(tables.requests.height, -1).sum(axis=1),
        expected_click=expected,
        observed_click=clicks / shown.height,
        true_click=float(truth["p_click"].mean()),  # type: ignore[arg-type]
        new_shown=float(_is_new(shop, shop.item_numbers(shown["item_id"])).mean()),
        new_offered=float(_is_new(shop, shop.items.available(shop.dials.day_number(day))).mean()),
    )


def _is_new(shop: Shop, items: np.ndarray) -> np.ndarray:
    """Tell which items came after the first night [N]."""
    found: np.ndarray = shop.items.arrival_day[items] > shop.dials.day_number(shop.dials.last_day)
    return found


def _day_tree(of: ServedDay) -> dict[str, Any]:
    return {
        "day": str(of.day),
        "true_value": float(of.value.mean()),
        "expected_click": of.expected_click,
        "observed_click": of.observed_click,
        "true_click": of.true_click,
        "new_shown": of.new_shown,
        "new_offered": of.new_offered,
        "expected_over_observed": of.expected_click / of.observed_click if of.observed_click else None,
        "requests": int(of.value.size),
    }


def above(own: ServedDay, other: ServedDay) -> dict[str, float]:
    """Give the share by which a day's lists are worth more, paired by request, and its 95 % interval."""
    difference = (own.value - other.value) / other.value.mean()
    error = 1.96 * float(difference.std(ddof=1)) / np.sqrt(difference.size)
    mean = float(difference.mean())
    return {"mean": mean, "low": mean - error, "high": mean + error}
