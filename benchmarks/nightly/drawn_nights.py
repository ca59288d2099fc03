"""Nights of a simulated shop as measured facts: its shown lists, labels drawn anew, models that err.

Both models know the truth with an error, which they share in part, as a warm start does: equally good.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
from scipy.special import expit, logit

from recsys.config import RunConfig, build_fusion, default_config
from recsys.fusion import Fusion
from recsys.metrics.columns import Vector
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import simulate_day
from recsys.simulator.shop import Shop
from recsys.tasks import TaskSpec
from training.gate import ServedFacts

DAY = date(2026, 1, 30)
DIALS = ShopDials(users=3_000, items=400, days=2, candidates=60, last_day=DAY)
OWN, SHARED = 0.25, 0.35
"""Errors of a model's logits, in standard deviations: its own, and what champion and challenger share."""
PAGES = 300
SERVED = ServedFacts(golden=None, index_recall=0.99, min_recall=0.95, size_bytes=1_000_000, request_ms=4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """The measured facts of one night."""

    challenger: pl.DataFrame
    champion: pl.DataFrame
    fusion: Fusion
    live: Fusion
    served: ServedFacts = SERVED
    pages: tuple[list[list[str]], list[list[str]]]
    refitted: pl.DataFrame | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchShop:
    """Two days of shown lists, and what is true of each row [N]."""

    rows: pl.DataFrame
    click: Vector
    """Of an item that is looked at."""
    bought: Vector
    """Given a click."""
    examination: Vector
    config: RunConfig

    @classmethod
    def simulate(cls, seed: int) -> "BenchShop":
        """Simulate the day that is evaluated and the one before."""
        shop = Shop.from_seed(DIALS, seed)
        frames = []
        for day in (DAY - timedelta(days=1), DAY):
            tables = simulate_day(shop, day)
            shown = tables.impressions.join(tables.truth, on="impression_id", maintain_order="left")
            frames.append(shown.with_columns(date=pl.lit(day)))
        rows = pl.concat(frames).with_columns(
            weight=pl.lit(1.0),
            list_group=pl.col("request_id").rank("dense").cast(pl.Int64) - 1,
            user_past=pl.col("user_id").hash(seed) % 40,
        )
        looked = shop.truth.examination(rows["position"].to_numpy().astype(np.int64))
        seen = rows["p_click"].to_numpy()
        return cls(
            rows=rows.with_columns(examination=pl.Series(looked)),
            click=seen / looked,
            bought=rows["p_purchase"].to_numpy() / seen,
            examination=looked,
            config=default_config(),
        )

    @property
    def tasks(self) -> list[TaskSpec]:
        """Give the heads that predict a probability."""
        return [task for task in self.config.tasks if task.kind.probability]

    @property
    def fusion(self) -> Fusion:
        """Give the score of the shop."""
        return build_fusion(self.tasks, self.config.fusion)

    def night(self, rng: np.random.Generator) -> Night:
        """Draw labels, and two models that know equally much."""
        size = self.click.size
        clicked = rng.random(size) < self.click * self.examination
        labels = {"label_click": clicked, "label_purchase": clicked & (rng.random(size) < self.bought)}
        rows = self.rows.with_columns(pl.Series(name, value.astype(float)) for name, value in labels.items())
        common = rng.normal(0, SHARED, size)
        made = [self.scored(rows, common + rng.normal(0, OWN, size), self.fusion) for _ in range(2)]
        return Night(
            challenger=made[0],
            champion=made[1],
            fusion=self.fusion,
            live=self.fusion,
            pages=(pages_of(made[0]), pages_of(made[1])),
            refitted=made[0],
        )

    def scored(self, rows: pl.DataFrame, error: Vector, fusion: Fusion) -> pl.DataFrame:
        """Give rows with a model's predictions, calibrated on the whole, and its fused score."""
        click = self.calibrated(logit(self.click) + error, self.click * self.examination)
        truth = self.click * self.bought
        purchase = self.calibrated(logit(truth) + error, truth * self.examination)
        return with_predictions(rows, {"click": click, "purchase": purchase}, fusion)

    @staticmethod
    def calibrated(score: Vector, chance: Vector) -> Vector:
        """Scale probabilities so that their mean is the true chance's."""
        found = expit(score)
        scaled: Vector = np.clip(found * (chance.mean() / found.mean()), 1e-6, 1 - 1e-6)
        return scaled


def with_predictions(rows: pl.DataFrame, predictions: Mapping[str, Vector], fusion: Fusion) -> pl.DataFrame:
    """Add predictions and the fused score, with the user's state held alike."""
    score = fusion.score({task: values.astype(np.float32) for task, values in predictions.items()})
    columns = {f"prediction_{task}": values for task, values in predictions.items()} | {"score": score}
    return rows.with_columns(
        pl.Series(f"{held}{name}", values) for name, values in columns.items() for held in ("", "list_")
    )


def pages_of(rows: pl.DataFrame) -> list[list[str]]:
    """Give the first users' items of the evaluated day, by score, ten each."""
    today = rows.filter(pl.col("date") == DAY).sort("user_id", "score", descending=[False, True])
    pages = today.group_by("user_id", maintain_order=True).agg(pl.col("item_id").head(10))
    found: list[list[str]] = pages.head(PAGES)["item_id"].to_list()
    return found
