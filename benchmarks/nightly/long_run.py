"""Four weeks of nights that serve their own lists: drift, new items, two outages and a corrupt day.

    gated   ─▶ night, gate, publish ─▶ serves the next day ─▶ …   nights fail as the script says
    always  the same nights, whatever the gate would say          nights fail likewise
    never   the first night's bundle serves every day

All three get the same requests. After each night of the gated world it is looked whether a server could go
on: a live bundle that is there, its users in the store, and nothing half-written.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.commit import commit
from benchmarks.loop.loop import ServedDay, World, above
from benchmarks.nightly.crash import litter, small_config
from features.store import open_store
from recsys.config import RunConfig, parse_config
from recsys.errors import DataError, RecsysError, StoreError
from recsys.log import InteractionLog
from recsys.records import Verdict
from recsys.simulator.dials import ShopDials
from recsys.simulator.shop import Shop

NOT_RUN = "not run"
_STATES = {str(verdict) for verdict in Verdict}
_NOBODY_LISTENS = "redis://127.0.0.1:1"


def long_dials(users: int) -> ShopDials:
    """Give a shop whose tastes turn and whose items change, small enough for nights of seconds."""
    return ShopDials(
        users=users,
        items=max(100, users // 3),
        days=6,
        requests_per_user_day=2.0,
        candidates=60,
        click_base=-3.0,
        purchase_base=-1.5,
        drift=0.05,
        new_item_rate=0.05,
    )


def long_config() -> RunConfig:
    """Give the small config with a head of ratings, which the value of a page counts.

    So few users never have the labels of a night that decides: only what is shown to be worse holds. It is
    known that tastes turn and that own lists are clicked less, so neither stops a night.
    """
    data = small_config().model_dump(mode="json", by_alias=True)
    rating = {
        "name": "rating", "feedback": "rating", "head": "regression", "window": "1d", "space": "observed",
        "fusion_weight": 0.02,
    }  # fmt: skip
    return parse_config(
        {
            **data,
            "task": [*data["task"], rating],
            "gate": {"min_rows": 200, "underpowered": "promote"},
            "validation": {"min_expected": 50, "accept": ["drift", "feedback_rate"]},
        },
        "bench nightly",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Nights, from 0, on which something goes wrong."""

    no_scheduler: int
    """Nobody runs it; the next night catches up."""
    store_down: int
    corrupt_day: int
    """The day's impressions are damaged; they are repaired before the next night."""

    @classmethod
    def of(cls, nights: int) -> "Script":
        """Spread them over the nights."""
        return cls(no_scheduler=nights // 4, store_down=nights // 2, corrupt_day=3 * nights // 4)

    def expected(self, night: int) -> set[str]:
        """Give the states in which a night may end."""
        wrong = {
            self.no_scheduler: NOT_RUN,
            self.store_down: StoreError.__name__,
            self.corrupt_day: DataError.__name__,
        }
        return {wrong[night]} if night in wrong else _STATES


def measure_long(
    config: RunConfig, dials: ShopDials, nights: int, seed: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run the three worlds; give the tree of the JSON. Args: say: is told of each night."""
    began, script = time.process_time(), Script.of(nights)
    with tempfile.TemporaryDirectory(prefix="recsys-long-") as scratch:
        gated = World(Shop.from_seed(dials, seed), config, Path(scratch) / "gated", seed)
        first = gated.night(dials.last_day)
        never, always = (_copy(gated, Path(scratch) / name) for name in ("never", "always"))
        always.config = _always(config)
        rows = []
        for number in range(nights):
            night = dials.last_day + timedelta(days=number)
            started = time.process_time()
            state = first if number == 0 else _night(gated, script, number, night)
            took = time.process_time() - started
            if number:
                _night(always, script, number, night)
            wrong = [] if state in script.expected(number) else [f"ended as {state}"]
            served = [world.serve(night + timedelta(days=1)) for world in (gated, never, always)]
            rows.append(_row(night, state, took, [*wrong, *_problems(gated)], served))
            say(
                f"{night}: {state}; {rows[-1]['true_value']:.3f}, {'; '.join(rows[-1]['problems']) or 'well'}"
            )
    return {
        "seed": seed,
        "dials": dials.model_dump(
            mode="json", include={"users", "items", "days", "drift", "new_item_rate"}
        ),
        "script": {"no_scheduler": script.no_scheduler, "store_down": script.store_down,
                   "corrupt_day": script.corrupt_day},
        "nights": rows,
        "undocumented": sum(bool(row["problems"]) for row in rows),
        "mean_true_value": {name: sum(row[name] for row in rows) / len(rows)
                            for name in ("true_value", "never_retrained", "always_published")},
        "commit": commit(),
        "cpu_seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


def _night(world: World, script: Script, number: int, night: date) -> str:
    """Run a night as the script says; give how it ended: a verdict, or the error's name."""
    if number == script.no_scheduler:
        return NOT_RUN
    whole, config = world.log.root / "impressions" / f"date={night}", world.config
    try:
        if number == script.store_down:
            store = config.store.model_copy(update={"url": _NOBODY_LISTENS})
            world.config = config.model_copy(update={"store": store})
        if number == script.corrupt_day:
            with _Damaged(whole):
                return world.night(night)
        return world.night(night)
    except RecsysError as error:
        return next(kind.__name__ for kind in (StoreError, DataError, type(error)) if isinstance(error, kind))
    finally:
        world.config = config


class _Damaged:
    """Let the items of most impressions be missing while the block runs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._kept = folder, folder.with_name(f".{folder.name}.kept")

    def __enter__(self) -> None:
        shutil.copytree(self._folder, self._kept)
        for file in self._folder.glob("*.parquet"):
            rows = pl.read_parquet(file, hive_partitioning=False)
            lost = pl.when(pl.int_range(pl.len()) % 4 == 0).then("item_id")
            rows.with_columns(item_id=lost).write_parquet(file)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder)
        self._kept.rename(self._folder)


def _problems(world: World) -> list[str]:
    """Say what would keep a server from going on with what is live."""
    registry = world.registry
    live, found = registry.current(), []
    if live is None or live not in registry.versions():
        return [f"{live} is live and not there"]
    with closing(open_store(world.config.store, world.runs)) as store:
        try:
            store.get_many(live, ())
        except StoreError as error:
            found.append(str(error))
    left = litter(world.runs)
    return [*found, *([f"left over: {left[0].name}"] if left else [])]


def _row(
    night: date, state: str, took: float, problems: Sequence[str], served: Sequence[ServedDay]
) -> dict[str, Any]:
    own, never, always = served
    return {
        "night": str(night),
        "state": state,
        "cpu_seconds": round(took, 1),
        "problems": list(problems),
        "true_value": float(own.value.mean()),
        "never_retrained": float(never.value.mean()),
        "always_published": float(always.value.mean()),
        "above_never_retrained": above(own, never),
        "above_always_published": above(own, always),
    }


def _always(config: RunConfig) -> RunConfig:
    """Let everything go live that can be made: nothing is compared, and no floor holds."""
    free: Mapping[str, Any] = {
        "underpowered": "promote", "anchor_days": 0, "min_rows": 10**9, "min_list_auc": 0.0,
        "max_ece": 1.0, "min_recall_ratio": 0.0,
    }  # fmt: skip
    return config.model_copy(update={"gate": config.gate.model_copy(update=dict(free))})


def _copy(world: World, folder: Path) -> World:
    """Give a world of its own with the same past."""
    shutil.copytree(world.runs.parent, folder)
    copied = World.__new__(World)
    copied.__dict__ |= world.__dict__
    copied.log, copied.runs = InteractionLog(folder / "log"), folder / "runs"
    return copied
