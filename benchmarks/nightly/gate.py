"""What the gate holds and what it lets through: planted harm, honest nights, models exactly at the margin.

The facts are drawn (`drawn_nights`, `plants`); the rules, all of them, are the product's.
"""

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from statistics import fmean

import numpy as np
import polars as pl
from scipy.special import expit

from benchmarks.nightly.drawn_nights import DAY, SERVED, BenchShop, Night
from benchmarks.nightly.plants import PLANTS
from recsys.config import GateConfig, default_config
from recsys.cpus import num_cpus
from recsys.head_kinds import HEAD_KINDS
from recsys.metrics.table import pooled_metric
from recsys.records import Check, PowerAt, Verdict
from training.gate import (
    GateRows,
    check_lists_alike,
    check_refit,
    check_served,
    compare_bundles,
    decide,
)
from training.gate.heads import compare_heads
from training.threads import use_threads

HONEST = "honest"
PRIMARY = HEAD_KINDS["binary"].metric
PLANTED_NIGHTS = 5
"""Nights of each planted harm."""
SHOWN = 5
"""So many of the checks that held a planted harm are named."""
_MARGIN_STREAM = 99
_USERS, _LISTS, _PLACES = 400, 2, 10
_FLIPS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class GateBench:
    """How often nights went live."""

    planted_promoted: int
    """Of all planted nights."""
    honest_promoted: float
    stated_rate: float
    """Mean over the honest nights of what each stated of itself."""
    margin_promoted: float
    margin_nights: int
    honest_nights: int
    confusion: dict[str, dict[str, int]]
    """What was planted -> verdict -> nights."""
    held_by: dict[str, list[str]]
    """What was planted -> the checks that held it, most often first."""

    def to_json(self) -> dict[str, object]:
        """Give it as JSON values."""
        return {"gate": asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What became of one night."""

    name: str
    verdict: Verdict
    held_by: tuple[str, ...]
    stated_rate: float


def measure_gate(honest: int, margin: int, seed: int, primary: str = PRIMARY) -> GateBench:
    """Run nights of every kind through the gate's rules, in as many processes as there are cores.

    Args: honest, margin: how many nights of each; seed: of the shop and of all draws; primary: the metric
        that compares binary heads in place of the product's. The margin's nights lose exactly the margin of
        AUC inside lists.
    Raises: ConfigError when the metric is not pooled over rows.
    """
    pooled_metric(primary)
    nights = [(HONEST, number, seed) for number in range(honest)]
    nights += [(name, number, seed) for name in PLANTS for number in range(PLANTED_NIGHTS)]
    spawned = get_context("spawn")
    with ProcessPoolExecutor(num_cpus(), spawned, _start, (primary,)) as pool:
        outcomes = list(pool.map(_run, nights, chunksize=4))
        passed = list(pool.map(_pass_at_the_margin, [(seed, n) for n in range(margin)], chunksize=50))
    confusion: dict[str, Counter[str]] = {}
    held_by: dict[str, Counter[str]] = {}
    for one in outcomes:
        confusion.setdefault(one.name, Counter()).update([str(one.verdict)])
        held_by.setdefault(one.name, Counter()).update(one.held_by)
    promoted = {name: counts[str(Verdict.PROMOTE)] for name, counts in confusion.items()}
    return GateBench(
        planted_promoted=sum(promoted[name] for name in PLANTS),
        honest_promoted=promoted[HONEST] / honest,
        stated_rate=fmean(one.stated_rate for one in outcomes if one.name == HONEST),
        margin_promoted=fmean(passed),
        margin_nights=margin,
        honest_nights=honest,
        confusion={name: dict(counts) for name, counts in confusion.items()},
        held_by={name: [check for check, _ in by.most_common(SHOWN)] for name, by in held_by.items()},
    )


def _start(primary: str) -> None:
    """Prepare a process of the pool."""
    use_threads(1)
    HEAD_KINDS["binary"] = replace(HEAD_KINDS["binary"], metric=primary)


@lru_cache(maxsize=1)
def _shop(seed: int) -> BenchShop:
    return BenchShop.simulate(seed)


def _run(asked: tuple[str, int, int]) -> _Outcome:
    """Draw one night of a kind, and decide it."""
    name, number, seed = asked
    shop, kind = _shop(seed), [HONEST, *PLANTS].index(name)
    rng = np.random.default_rng([seed, kind, number])
    night = shop.night(rng)
    if name != HONEST:
        night = PLANTS[name](shop, night, rng)
    verdict, held, power = decided(night, shop, GateConfig(), number)
    checks = tuple(check.name for check in held)
    return _Outcome(name=name, verdict=verdict, held_by=checks, stated_rate=power.stated_rate)


def _pass_at_the_margin(asked: tuple[int, int]) -> bool:
    seed, number = asked
    return at_the_margin(np.random.default_rng([seed, _MARGIN_STREAM, number]), number)


def at_the_margin(rng: np.random.Generator, seed: int) -> bool:
    """Draw a night whose challenger loses exactly a tenth of what the champion adds: does it pass?

    The champion says one of two scores of each row. The challenger says the other one of 5 % of the rows,
    whatever the label: of the difference between the classes' shares, which is twice AUC - .5 inside every
    list, .9 is left.
    """
    size = _USERS * _LISTS * _PLACES
    high = rng.random(size) < 0.5
    user = np.repeat(np.arange(_USERS), _LISTS * _PLACES)
    chance = expit(-1.5 + 1.0 * high + np.repeat(rng.normal(0, 0.5, _USERS), _LISTS * _PLACES))
    other = high ^ (rng.random(size) < _FLIPS)
    rows = pl.DataFrame(
        {
            "impression_id": pl.Series(np.arange(size)).cast(pl.String),
            "user_id": pl.Series(user).cast(pl.String),
            "weight": np.ones(size),
            "list_group": np.arange(size) // _PLACES,
            "examination": np.ones(size),
            "label_click": (rng.random(size) < chance).astype(float),
        }
    )
    champion, challenger = (
        rows.with_columns(
            pl.Series(f"{held}prediction_click", 0.1 + 0.2 * said.astype(float)) for held in ("", "list_")
        )
        for said in (high, other)
    )
    (found,), _ = compare_heads(default_config().tasks[:1], challenger, champion, GateConfig(), seed)
    return found.passes


def decided(
    night: Night, shop: BenchShop, config: GateConfig, seed: int
) -> tuple[Verdict, list[Check], PowerAt]:
    """Apply every rule."""
    gated = {task.name: DAY for task in shop.tasks}
    rows = GateRows(challenger=night.challenger, champion=night.champion, gated=gated)
    found = compare_bundles(shop.tasks, rows, night.fusion, night.live, config, seed)
    checks = [
        *found.checks,
        *check_lists_alike(*night.pages, config),
        *check_served(night.served, SERVED, config),
    ]
    decision = decide("champion", "challenger", checks)
    if decision.verdict is Verdict.PROMOTE and night.refitted is not None:
        seen = [frame.filter(pl.col("date") == DAY) for frame in (night.refitted, night.challenger)]
        decision = decision.with_checks(check_refit(shop.tasks, seen[0], seen[1], config, 0))
    held = [check for check in decision.checks if check.outcome is not Verdict.PROMOTE]
    return decision.verdict, held, found.power[0]
