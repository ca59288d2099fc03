"""Train heads together and alone, on the same days, and predict what each is judged on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property

import numpy as np
import polars as pl

from recsys.calibration import Calibrator
from recsys.config import RunConfig
from recsys.encoding import EncoderState
from recsys.log import period_end
from recsys.model.scorer import calibrate
from recsys.snapshot import DaySnapshot
from recsys.tasks import TaskSpec
from training.calibrate import fit_calibration
from training.data import Shard, label_days
from training.learn import Learnt, fit_state, learn
from training.night import plan_night
from training.objective import RETRIEVAL
from training.predict import shard_logits
from training.report.transfer_probe import GradientProbe


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One head's calibrated predictions of its labelled judged rows [N]."""

    prediction: np.ndarray
    label: np.ndarray
    user: np.ndarray
    weight: np.ndarray


class Runs:
    """The days of one night; each training on them is one call."""

    def __init__(self, chain: Sequence[DaySnapshot], config: RunConfig) -> None:
        """Plan the night of the chain's last period.

        Raises: DataError when there are too few periods to learn, calibrate and judge apart.
        """
        self.chain, self.config = chain, config
        self.plan = plan_night([s.day for s in chain], config, None)
        self.as_of: datetime = period_end(chain[-1].day, config.timezone)
        self.labels, _ = label_days(chain, config.tasks, self.as_of, [s.day for s in chain])

    @cached_property
    def state(self) -> EncoderState:
        """Fit vocabularies and statistics as the shared model's training does."""
        return fit_state(self.chain, list(self.plan.train_periods), self.config, None)

    @property
    def steps(self) -> int:
        """Count the steps of a shared training."""
        size, training = self.config.training.batch_size, self.config.training
        rows = [int(self.chain[i].manifest["rows"]["impressions"]) for i in self.plan.train_periods]
        return training.epochs * sum(-(-n // size) for n in rows)

    @property
    def weights(self) -> dict[str, float]:
        """Give the config's weight of every loss."""
        return {t.name: t.weight for t in self.config.tasks} | {RETRIEVAL: self.config.retrieval.weight}

    def train_days(self, task: str) -> list[date]:
        """Give the days that a head is learnt from."""
        first, last = self.plan.train[task]
        return [self.chain[i].day for i in range(first, last + 1)]

    def train_labels(self, task: TaskSpec) -> pl.Series:
        """Give the known labels that a head is learnt from."""
        days = [self.labels[day][task.label] for day in self.train_days(task.name)]
        return pl.concat([day.cast(pl.Float64) for day in days]).drop_nulls()

    def learn(
        self, config: RunConfig, tasks: Sequence[TaskSpec], seed: int, probe: GradientProbe | None = None
    ) -> Learnt:
        """Learn some heads with a config's widths from a seed."""
        training = config.training.model_copy(update={"seed": seed})
        return learn(
            self.chain,
            {task.name: self.plan.train[task.name] for task in tasks},
            config.model_copy(update={"training": training}),
            self.as_of,
            None,
            training.epochs,
            tasks=tasks,
            observer=probe,
        )

    def judge(self, learnt: Learnt, config: RunConfig, tasks: Sequence[TaskSpec]) -> dict[str, Judged]:
        """Calibrate each head on its own day and predict its judged day."""
        plan = self.plan
        names = [task.name for task in tasks]
        wanted = {plan.calibrate[n] for n in names} | {plan.judge[n] for n in names}
        scored = {i: self._score(learnt, config, i) for i in sorted(wanted)}
        calibration: dict[str, Calibrator] = {}
        for task in tasks:
            logits, shard = scored[plan.calibrate[task.name]]
            label = shard.labels[task.name]
            rows = pl.DataFrame({"weight": shard.weight, "shown_at": shard.shown_at, task.label: label})
            calibration |= fit_calibration([task], logits, rows, config.calibration)
        found = {}
        for task in tasks:
            logits, shard = scored[plan.judge[task.name]]
            known = ~np.isnan(shard.labels[task.name])
            found[task.name] = Judged(
                prediction=calibrate(logits, tasks, calibration)[task.name][known],
                label=shard.labels[task.name][known],
                user=shard.user_key[known],
                weight=shard.weight[known],
            )
        return found

    def _score(self, learnt: Learnt, config: RunConfig, period: int) -> tuple[dict[str, np.ndarray], Shard]:
        return shard_logits(learnt, self.chain, period, self.labels[self.chain[period].day], config)
