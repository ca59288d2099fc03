"""The simulated shop: one night on a log of `recsys simulate`, beside the truth and what can be known of it.

The log's seed is the caller's: choose one that nobody tuned on. The informed oracle knows every item's
factors and estimates the users from the log; the appeal oracle also knows how much each item is liked by all.
`facts` say how much of the way from chance to the latter, and to the truth, the chosen row has come.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.quality_set import Key, Measure, QualitySet, Row, baseline
from benchmarks.quality.sets.night import FittedBaseline, LabelledRows, Night
from benchmarks.quality.sets.night_baselines import NIGHT_BASELINES, TRIALS
from recsys.config import default_config
from recsys.log import InteractionLog
from recsys.schema import IMPRESSION_KEY
from recsys.simulator.oracle import estimate_users, informed_predictions, read_labelled
from recsys.simulator.shop import Shop
from recsys.stages import Stages
from recsys.tasks import TaskSpec
from training.data import EncodedRows

_TRUE = {"click": "p_click", "purchase": "p_purchase", "rating": "expected_rating"}
BY_CHANCES = "true_list_auc"
"""`list_auc` in the mean over draws of the day's labels."""
_SHOWN = ("impression_id", "user_id", "item_id", "shown_at", "position", "context_device")


def open_shop(folder: Path, scratch: Path) -> QualitySet:
    """Plan the night of the log's last day: trunks, order inside lists as a loss, simple systems, oracles.

    Raises: DataError when the folder is no log of `recsys simulate`.
    """
    shop, night = Shop.from_log(folder), shop_night(folder, scratch)
    oracles, orders = Oracles(shop, night.log), night.list_orders()
    simple = NIGHT_BASELINES | {
        "informed_oracle": partial(oracles.informed, knows_appeal=False),
        "appeal_oracle": partial(oracles.informed, knows_appeal=True),
        "truth": oracles.truth,
    }
    return QualitySet(
        name="shop",
        protocol=f"a night: {night.protocol}; the default config",
        interval="95 %, bootstrap of the test day's users, all seeds on each draw",
        budget=night.budget(TRIALS),
        rows={
            **{name: Row(partial(night.train, config)) for name, config in night.trunks().items()},
            **{name: baseline(partial(night.fit, fit)) for name, fit in simple.items()},
            **orders,
        },
        validation=night.validation_measures(),
        test=[found for m in night.test_measures() for found in (m, *oracles.by_chances(m, night))],
        questions=tuple((name, night.config.model.trunk.name) for name in orders),
        facts={
            "seed": float(shop.seed),
            "users": float(shop.dials.users),
            "items": float(shop.dials.items),
        },
        conclude=shares_of_way,
    )


def shop_night(folder: Path, scratch: Path) -> Night:
    """Plan the night of a log's last day, with the default config.

    Raises: DataError when the folder is no log.
    """
    return Night(InteractionLog(folder), default_config(), Stages(scratch / "stages"))


def shares_of_way(chosen: str, values: Mapping[str, Mapping[Key, float]]) -> dict[str, float]:
    """Say how far the chosen row has come from chance to an oracle and to truth, per AUC inside lists."""
    return {
        f"{head}_share_of_{name}": (values[chosen][head, metric] - 0.5) / (value - 0.5)
        for row, name in (("appeal_oracle", "oracle"), ("truth", "truth"))
        for (head, metric), value in values.get(row, {}).items()
        if metric == "list_auc"
    }


class Oracles:
    """What the truth and the informed oracle say of a day's impressions."""

    def __init__(self, shop: Shop, log: InteractionLog) -> None:
        """Know the shop that wrote a log."""
        self.shop, self.log = shop, log
        self._informed: dict[tuple[date, bool], pl.DataFrame] = {}

    def informed(
        self, task: TaskSpec, night: Night, known: LabelledRows, *, knows_appeal: bool
    ) -> FittedBaseline:
        """Give an informed oracle's predictions, with users estimated from the days before the rows' own."""
        del night, known

        def predict(rows: LabelledRows) -> np.ndarray:
            day = rows.encoded.day
            if (day, knows_appeal) not in self._informed:
                history = read_labelled(self.log, self.shop.dials.first_day, day - timedelta(days=1))
                estimates = estimate_users(self.shop, history, knows_appeal=knows_appeal)
                self._informed[day, knows_appeal] = informed_predictions(
                    self.shop, estimates, self._shown(rows.encoded)
                )
            return self._informed[day, knows_appeal][task.name].to_numpy()[rows.rows]

        return FittedBaseline(predict=predict, calibrate=False)

    def truth(self, task: TaskSpec, night: Night, known: LabelledRows) -> FittedBaseline:
        """Give the true chance, or the stars that are expected."""
        del night, known

        def predict(rows: LabelledRows) -> np.ndarray:
            true = self.shop.true_predictions(self._shown(rows.encoded))
            return true[_TRUE[task.name]].to_numpy()[rows.rows]

        return FittedBaseline(predict=predict, calibrate=False)

    def by_chances(self, measure: Measure, night: Night) -> list[Measure]:
        """Give the same measure by the true chances of its labels, where it is of an order inside lists.

        A day of a rare head has few lists with both labels; chances have the figure that labels have in the
        mean.
        """
        task = next(task for task in night.config.tasks if task.name == measure.head)
        if measure.metric != "list_auc":
            return []
        rows = night.labelled(task, night.runs.plan.evaluate)
        chance = self.truth(task, night, rows).predict(rows)
        return [replace(measure, metric=BY_CHANCES, pooled=BY_CHANCES, label=chance)]

    def _shown(self, encoded: EncodedRows) -> pl.DataFrame:
        """Give a day's impressions as they were logged, in the encoded order."""
        logged = self.log.read("impressions", encoded.day).select(_SHOWN).unique(IMPRESSION_KEY)
        return encoded.frame.select(IMPRESSION_KEY).join(
            logged, on=IMPRESSION_KEY, how="left", maintain_order="left"
        )
