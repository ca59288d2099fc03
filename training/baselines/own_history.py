"""What a user took most often themselves, the recent times counting more; ties by popularity.

It knows no exclusion: where people take the same things again, it says what a list that leaves those out
gives away. Shapes: U users, I items.
"""

import numpy as np
import polars as pl

from features.days import Days
from recsys.tasks import TaskSpec
from training.evaluation.audience import item_codes

HALF_LIFE_DAYS = 28.0
"""An event counts half as much as one so many days later."""
_DAY_MS = 86_400_000


class OwnHistory:
    """Each user's own counts of items, and the items' popularity beneath them."""

    def __init__(self, events: pl.DataFrame, popularity: pl.DataFrame) -> None:
        """Count. Args: events: user_id, item_id, age_days, a row each; popularity: item_id, count."""
        times = (0.5 ** (pl.col("age_days") / HALF_LIFE_DAYS)).sum().alias("times")
        self.pairs = events.group_by("user_id", "item_id").agg(times)
        self.popularity = popularity.select("item_id", share=pl.col("count") / (pl.col("count").max() + 1))
        """Below 1."""
        # Below the difference that one event makes, however old.
        self._tie = 1e-6 * float(np.min(self.pairs["times"].to_numpy(), initial=1.0))

    @classmethod
    def before(cls, days: Days, i: int, task: TaskSpec) -> "OwnHistory":
        """Count a task's feedback before day i."""
        events = events_before(days, i, task)
        return cls(events, events.group_by("item_id").agg(pl.len().alias("count")))

    def of_pairs(self, users: pl.Series, items: pl.Series) -> np.ndarray:
        """Score (user, item) pairs [N]."""
        asked = pl.DataFrame({"user_id": users, "item_id": items})
        found = asked.join(self.pairs, on=["user_id", "item_id"], how="left", maintain_order="left")
        found = found.join(self.popularity, on="item_id", how="left", maintain_order="left")
        scores: np.ndarray = found.select(
            pl.col("times").fill_null(0.0) + self._tie * pl.col("share").fill_null(0.0)
        ).to_series().to_numpy()  # fmt: skip
        return scores

    def of_lists(self, users: pl.Series, items: pl.Series) -> np.ndarray:
        """Score every item of a catalogue for some users: [U, I]."""
        popular = items.alias("item_id").to_frame()
        popular = popular.join(self.popularity, on="item_id", how="left", maintain_order="left")
        shares = self._tie * popular["share"].fill_null(0.0).to_numpy()
        scores = np.repeat(shares[None], users.len(), axis=0)
        asked = pl.DataFrame({"user_id": users}).with_row_index("row")
        mine = asked.join(self.pairs, on="user_id", how="inner")
        column = item_codes(mine["item_id"], items)
        listed = column >= 0
        scores[mine["row"].to_numpy()[listed], column[listed]] += mine["times"].to_numpy()[listed]
        return scores


def events_before(days: Days, i: int, task: TaskSpec) -> pl.DataFrame:
    """List a task's feedback before day i: user_id, item_id, age_days at the latest of it."""
    columns = ["user_id", "item_id", "occurred_at"]
    kind = pl.col("kind") == task.feedback
    parts = [s.table("feedback", columns=[*columns, "kind"]).filter(kind).select(columns) for s in days[:i]]
    age = pl.col("occurred_at").max() - pl.col("occurred_at")
    return pl.concat(parts).select(
        "user_id", "item_id", age_days=age.dt.total_milliseconds().cast(pl.Float64) / _DAY_MS
    )
