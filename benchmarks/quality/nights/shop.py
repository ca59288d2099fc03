"""The simulated shop: one night on a log of `recsys simulate`, beside the truth and what can be known of it.

The log's seed is the caller's: choose one that nobody tuned on. `facts` say how much of the way from chance
to the informed oracle, which knows every item's factors and learns the users from the log, the chosen row has
come.
"""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from benchmarks.quality.nights.baselines import NIGHT_BASELINES, TRIALS
from benchmarks.quality.nights.night_set import (
    FitBaseline,
    FittedBaseline,
    NightSet,
    evaluated,
    kept,
    night_row,
)
from benchmarks.quality.report import (
    Difference,
    ModelRow,
    QualityReport,
    against_baselines,
    choose,
    wanted_rows,
)
from recsys.config import default_config
from recsys.log import InteractionLog
from recsys.model.trunks import TRUNKS
from recsys.simulator.oracle import estimate_users, informed_predictions, labelled
from recsys.simulator.shop import Shop
from recsys.stages import Stages
from recsys.tasks import TaskSpec
from training.data import EncodedRows

INFORMED, TRUTH = "informed_oracle", "truth"
_TRUE = {"click": "p_click", "purchase": "p_purchase", "rating": "expected_rating"}
_SHOWN = ("impression_id", "user_id", "item_id", "shown_at", "position", "context_device")


def measure_shop(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Train every trunk on the night of the log's last day; fit simple systems; ask the oracles.

    Raises: DataError when the folder is no log of `recsys simulate`; ConfigError without LightGBM.
    """
    wanted = wanted_rows([*TRUNKS, *NIGHT_BASELINES, INFORMED, TRUTH], asked)
    shop, log = Shop.from_log(folder), InteractionLog(folder)
    oracles = _Oracles(shop, log)
    simple: dict[str, FitBaseline] = NIGHT_BASELINES | {INFORMED: oracles.informed, TRUTH: oracles.truth}
    with TemporaryDirectory() as temporary:
        night = NightSet(log, default_config(), Stages(Path(temporary) / "stages"))
        tasks = night.config.tasks
        trained = {n: night.train(c, seeds, news, n) for n, c in night.trunks().items() if n in wanted}
        table = [night_row(name, tasks, runs, "", ours=True) for name, runs in trained.items()]
        fitted = {n: night.fit(n, fit, news) for n, fit in simple.items() if n in wanted}
        table += [night_row(n, tasks, [scores], note, ours=False) for n, (scores, note) in fitted.items()]
        rows = {name: evaluated(runs) for name, runs in trained.items()}
        rows |= {name: evaluated([scores]) for name, (scores, _) in fitted.items()}
        beside = against_baselines(table, kept(tasks, rows))
        return _report(night, shop, table, beside)


class _Oracles:
    """What the truth and the informed oracle say of a day's impressions."""

    def __init__(self, shop: Shop, log: InteractionLog) -> None:
        self.shop, self.log = shop, log
        self._informed: dict[date, pl.DataFrame] = {}

    def informed(self, task: TaskSpec, night: NightSet, known: EncodedRows) -> FittedBaseline:
        """Give the informed oracle's predictions, with users learnt from the days before the rows' own."""
        del night, known

        def predict(encoded: EncodedRows, rows: np.ndarray) -> np.ndarray:
            if encoded.day not in self._informed:
                history = labelled(self.log, self.shop.dials.first_day, encoded.day - timedelta(days=1))
                estimates = estimate_users(self.shop, history)
                self._informed[encoded.day] = informed_predictions(self.shop, estimates, self._shown(encoded))
            found: np.ndarray = self._informed[encoded.day][task.name].to_numpy()[rows]
            return found

        return FittedBaseline(predict=predict, calibrate=False)

    def truth(self, task: TaskSpec, night: NightSet, known: EncodedRows) -> FittedBaseline:
        """Give the true chance, or the stars that are expected."""
        del night, known

        def predict(encoded: EncodedRows, rows: np.ndarray) -> np.ndarray:
            true = self.shop.true_predictions(self._shown(encoded))
            found: np.ndarray = true[_TRUE[task.name]].to_numpy()[rows]
            return found

        return FittedBaseline(predict=predict, calibrate=False)

    def _shown(self, encoded: EncodedRows) -> pl.DataFrame:
        """Give a encoded's impressions as they were logged, in its order."""
        logged = self.log.read("impressions", encoded.day).select(_SHOWN).unique("impression_id")
        return encoded.frame.select("impression_id").join(
            logged, on="impression_id", how="left", maintain_order="left"
        )


def _report(
    night: NightSet, shop: Shop, table: Sequence[ModelRow], beside: Sequence[Difference]
) -> QualityReport:
    facts = {"seed": float(shop.seed), "users": float(shop.dials.users), "items": float(shop.dials.items)}
    informed = next((row for row in table if row.name == INFORMED), None)
    if informed is not None and any(row.ours for row in table):
        chosen = choose(table)
        for task in (t.name for t in night.config.tasks if t.is_binary):
            way = (chosen.heads[task]["auc"].value - 0.5) / (informed.heads[task]["auc"].value - 0.5)
            facts[f"{task}_share_of_way"] = way
    return QualityReport(
        name="shop",
        protocol=f"a night: {night.protocol}; the default config",
        interval="95 %, bootstrap of the test day's users, all seeds on each draw",
        budget=night.budget(TRIALS),
        rows=tuple(table),
        differences=tuple(beside),
        facts=facts,
    )
