"""KuaiRand-Pure, every head: one night, every trunk at one size, tuned trees, and what each part brings.

Training days end two before the last; the day before the last chooses and calibrates; the last is the
test. The config is `kuairand.toml`, the example for users.
"""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.quality.quality_set import QualitySet, Row, Run, baseline
from benchmarks.quality.sets.night import Night
from benchmarks.quality.sets.night_baselines import NIGHT_BASELINES, TRIALS
from features.sources.kuairand import convert
from recsys.config import RunConfig, load_config
from recsys.log import InteractionLog
from recsys.stages import Stages

CONFIG = Path(__file__).with_name("kuairand.toml")
WITHOUT = "without_"
CALIBRATION = "calibration"
"""Raw predictions, without the item's term too: the one part that is read off and not trained without.

The row `without_<part>` is the config that lacks the part."""


def open_kuairand(folder: Path, scratch: Path) -> QualitySet:
    """Convert the set: every trunk, every config that lacks a part, the simple systems.

    Raises: DataError when a file is missing.
    """
    night = kuairand_night(folder, scratch)
    full, configs = night.config.model.trunk.name, _configs(night)

    @cache
    def trained(name: str, seed: int) -> Run:
        """Train a config once, whatever rows read it."""
        same = next(n for n, config in configs.items() if config == configs[name])
        return night.train(configs[name], seed) if same == name else trained(same, seed)

    def uncalibrated(seed: int) -> Run:
        run = trained(full, seed)
        return replace(run, test={task: run.test[f"raw {task}"] for task in run.validation})

    rows = {name: Row(partial(trained, name)) for name in configs}
    rows[WITHOUT + CALIBRATION] = Row(uncalibrated)
    parts, orders = [name for name in rows if name.startswith(WITHOUT)], night.list_orders()
    return QualitySet(
        name="kuairand",
        protocol=f"a night: {night.protocol}",
        interval="95 %, bootstrap of the test day's users, all seeds a draw; differences draw seeds too",
        budget=night.budget(TRIALS),
        rows={
            **{name: row for name, row in rows.items() if name not in parts},
            **{name: baseline(partial(night.fit, fit)) for name, fit in NIGHT_BASELINES.items()},
            # What a part brings is a difference over seeds, and no line of the table.
            **{name: replace(rows[name], shown=False, least_seeds=2) for name in parts},
            **orders,
        },
        validation=night.validation_measures(),
        test=night.test_measures(),
        questions=tuple((full, name) for name in parts) + tuple((name, full) for name in orders),
        facts={f"{day.day}_impressions": day.manifest["rows"]["impressions"] for day in night.runs.days},
    )


def kuairand_night(folder: Path, scratch: Path) -> Night:
    """Convert the set and plan the night of its last day.

    Raises: DataError when a file is missing.
    """
    log = InteractionLog(scratch / "log")
    convert(folder, log)
    return Night(log, load_config(CONFIG), Stages(scratch / "stages"))


def _configs(night: Night) -> dict[str, RunConfig]:
    """Give the config of every row that is trained."""
    config = night.config
    found = night.trunks()
    without: dict[str, RunConfig] = {
        "history": _with(config, "features", history_length=0),
        # Tags, author, music, type, length.
        "item_content": _without_item_content(config),
        # Aggregates, crosses, live counters.
        "counts": _with(config, "features", aggregates=False, cross_user_by=(), live_counters=False),
        # One trunk instead of the mean of several.
        "ensemble": _with(config, "model", ensemble_size=1),
        # Shared bottom of the same size instead.
        "mixture": found["shared_bottom"],
        "sharing": found["single_task"],
        "retrieval_loss": _with(config, "retrieval", weight=0.0),
        # Purchase per impression, without its parent.
        "entire_space": _with_tasks(config, parent=None),
        "tuned_weights": _with_tasks(config, weight=1.0),
        "fixed_weights": _with(config, "training", balancing="uncertainty"),
    }
    return found | {WITHOUT + part: one for part, one in without.items()}


def _with(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def _with_tasks(config: RunConfig, **values: Any) -> RunConfig:
    return config.model_copy(update={"tasks": tuple(t.model_copy(update=values) for t in config.tasks)})


def _without_item_content(config: RunConfig) -> RunConfig:
    kept = tuple(a for a in config.attributes if a.entity != "item")
    return _with(config.model_copy(update={"attributes": kept}), "features", text_dim=0)
