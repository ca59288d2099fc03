"""KuaiRand-Pure, every head: one night, every trunk at one size, tuned trees, and what each part brings.

Training days end two before the last; the day before the last chooses and calibrates; the last is the
test. The config is `kuairand.toml`, the example for users.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.quality.nights.baselines import NIGHT_BASELINES, TRIALS
from benchmarks.quality.nights.night_set import NightSet, Scores, evaluated, kept, night_row
from benchmarks.quality.report import QualityReport, against_baselines, paired, wanted_rows
from features.sources.kuairand import convert
from recsys.config import RunConfig, load_config
from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.model.trunks import TRUNKS
from recsys.stages import Stages

CONFIG = Path(__file__).with_name("kuairand.toml")
MEMBERS = 4
MEMBERS_ROW = f"mmoe_{MEMBERS}_members"
WITHOUT = "without_"
CALIBRATION = "calibration"
PARTS = (
    "history",
    "item_content",  # tags, author, music, type, length
    "counts",  # aggregates, crosses, live counters
    "mixture",  # shared_bottom of the same size instead
    "sharing",  # single_task of the same size instead
    "retrieval_loss",
    "entire_space",  # purchase per impression, without its parent
    "tuned_weights",  # every loss counts 1
    "fixed_weights",  # uncertainty weighting instead
    CALIBRATION,  # raw predictions
)
"""The row `without_<part>` is the config that lacks it."""


def measure_kuairand(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Convert the set, train every trunk and every config that lacks a part, fit the simple systems.

    Raises: DataError when a file is missing; ConfigError when LightGBM is not installed.
    """
    models, parts = [*TRUNKS, MEMBERS_ROW], [WITHOUT + part for part in PARTS]
    wanted = wanted_rows([*models, *NIGHT_BASELINES, *parts], asked)
    if seeds < 2:
        if set(asked) & set(parts):
            raise ConfigError("what a part brings is a difference over seeds; give --seeds 2 or more")
        wanted = [name for name in wanted if name not in parts]
    with TemporaryDirectory() as temporary:
        log = InteractionLog(Path(temporary) / "log")
        convert(folder, log)
        night = NightSet(log, load_config(CONFIG), Stages(Path(temporary) / "stages"))
        trained = _trained(night, wanted, seeds, news)
        tasks = night.config.tasks
        table = [night_row(n, tasks, trained[n], "", ours=True) for n in models if n in wanted]
        simple = {n: night.fit(n, fit, news) for n, fit in NIGHT_BASELINES.items() if n in wanted}
        table += [night_row(n, tasks, [scores], note, ours=False) for n, (scores, note) in simple.items()]
        rows = {name: evaluated(runs) for name, runs in trained.items()}
        rows |= {name: evaluated([scores]) for name, (scores, _) in simple.items()}
        full = night.config.model.trunk.name
        if WITHOUT + CALIBRATION in wanted:
            rows[WITHOUT + CALIBRATION] = [{t: s.raw for t, s in run.items()} for run in trained[full]]
        figures = kept(tasks, rows)
        gains = [paired(figure, full, row) for row in parts if row in wanted for figure in figures]
        return QualityReport(
            name="kuairand",
            protocol=f"a night: {night.protocol}",
            interval="95 %, bootstrap of the test day's users, all seeds a draw; differences draw seeds too",
            budget=night.budget(TRIALS),
            rows=tuple(table),
            differences=(*against_baselines(table, figures), *gains),
            facts={f"{day.day}_impressions": day.manifest["rows"]["impressions"] for day in night.runs.chain},
        )


def _trained(
    night: NightSet, wanted: Sequence[str], seeds: int, news: Callable[[str], None]
) -> dict[str, list[Scores]]:
    """Train what the wanted rows need, each config once."""
    configs = _configs(night)
    needed = {n for n in wanted if n in configs}
    if any(n.startswith(WITHOUT) for n in wanted):
        needed.add(night.config.model.trunk.name)
    found: dict[str, list[Scores]] = {}
    for name in (n for n in configs if n in needed):
        same = next((n for n in found if configs[n] == configs[name]), None)
        found[name] = found[same] if same else night.train(configs[name], seeds, news, name)
    return found


def _configs(night: NightSet) -> dict[str, RunConfig]:
    """Give the config of every row that is trained."""
    config = night.config
    found = night.trunks()
    without: dict[str, RunConfig] = {
        "history": _with(config, "features", history_length=0),
        "item_content": _without_item_content(config),
        "counts": _with(config, "features", aggregates=False, cross_user_by=(), live_counters=False),
        "mixture": found["shared_bottom"],
        "sharing": found["single_task"],
        "retrieval_loss": _with(config, "retrieval", weight=0.0),
        "entire_space": _with_tasks(config, parent=None),
        "tuned_weights": _with_tasks(config, weight=1.0),
        "fixed_weights": _with(config, "training", balancing="uncertainty"),
    }
    found[MEMBERS_ROW] = _with(config, "model", ensemble_size=MEMBERS)
    return found | {WITHOUT + part: one for part, one in without.items()}


def _with(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def _with_tasks(config: RunConfig, **values: Any) -> RunConfig:
    return config.model_copy(update={"tasks": tuple(t.model_copy(update=values) for t in config.tasks)})


def _without_item_content(config: RunConfig) -> RunConfig:
    kept = tuple(a for a in config.attributes if a.entity != "item")
    return _with(config.model_copy(update={"attributes": kept}), "features", text_dim=0)
