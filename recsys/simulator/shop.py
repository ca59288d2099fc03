"""The simulated shop: its true probabilities, the rows of each day, and users who react to lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import DataError
from recsys.schema import INSTANT
from recsys.simulator.behaviour import Action, Probabilities, SimulatedFeedback, draw_feedback
from recsys.simulator.dials import DAY_MS, IntArray, ShopDials
from recsys.simulator.ground_truth import GroundTruth, ImpressionArrays
from recsys.simulator.item_texts import CATEGORIES
from recsys.simulator.population import (
    AGE_BANDS,
    COUNTRIES,
    DEVICES,
    Items,
    Users,
    build_items,
    build_users,
)

EXTRA_DAYS: Final = 60
SHOP_FILE: Final = "shop.json"


class ShopFile(BaseModel):
    """The file that a shop is rebuilt from: dials and seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    dials: ShopDials


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A shop with known tastes. Numbers index `items` and `users`; ids read `i000042` and `u000042`."""

    dials: ShopDials
    seed: int
    horizon: int
    items: Items
    users: Users

    @classmethod
    def from_seed(cls, dials: ShopDials, seed: int, extra_days: int = EXTRA_DAYS) -> Self:
        """Build the shop; equal dials and seeds make equal shops. It goes on `extra_days` after the log."""
        horizon = dials.days + extra_days
        return cls(
            dials=dials,
            seed=seed,
            horizon=horizon,
            items=build_items(dials, seed, horizon),
            users=build_users(dials, seed, horizon),
        )

    @classmethod
    def from_log(cls, log_root: Path, extra_days: int = EXTRA_DAYS) -> Self:
        """Rebuild the shop that `recsys simulate` wrote a log of.

        Raises: DataError when the log has no readable truth/shop.json.
        """
        path = log_root / "truth" / SHOP_FILE
        try:
            kept = ShopFile.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise DataError(
                f"{path} does not describe a simulated shop ({error}); `recsys simulate` writes it"
            ) from error
        return cls.from_seed(kept.dials, kept.seed, extra_days)

    @property
    def truth(self) -> GroundTruth:
        """Return the shop's ground truth."""
        return GroundTruth(dials=self.dials, seed=self.seed, items=self.items, users=self.users)

    def true_predictions(self, impressions: pl.DataFrame) -> pl.DataFrame:
        """Return impression_id, p_click, p_purchase (entire space) and expected_rating of impressions.

        Needs user_id, item_id, shown_at, position; without context_device, each user's usual device is taken.
        """
        truth = self.truth
        probabilities = truth.probabilities(self.arrays_of(impressions))
        return pl.DataFrame(
            {
                "impression_id": impressions["impression_id"],
                "p_click": probabilities.click,
                "p_purchase": probabilities.click * probabilities.purchase_given_click,
                "expected_rating": truth.expected_rating(probabilities),
            }
        )

    def arrays_of(self, impressions: pl.DataFrame) -> ImpressionArrays:
        """Convert a frame of impressions to arrays."""
        users = self.user_numbers(impressions["user_id"])
        since = impressions["shown_at"].cast(INSTANT).dt.epoch("ms").to_numpy() - self.dials.first_ms
        devices = self.users.device[users]
        if "context_device" in impressions.columns:
            named = [impressions["context_device"] == device for device in DEVICES]
            for number, mask in enumerate(named):
                devices = np.where(mask.fill_null(False).to_numpy(), number, devices)
        return ImpressionArrays(
            users=users,
            items=self.item_numbers(impressions["item_id"]),
            days=since // DAY_MS,
            hours=since % DAY_MS // 3_600_000,
            devices=devices,
            positions=impressions["position"].to_numpy().astype(np.int64),
        )

    def respond(
        self,
        user_id: str,
        item_ids: Sequence[str],
        positions: Sequence[int],
        at: datetime,
        rng: np.random.Generator,
        *,
        device: str | None = None,
    ) -> list[Action]:
        """Draw a user's feedback on a served list, in order of time; some of it occurs hours later.

        Args: item_ids and their positions (1 = top); at: when shown (aware); device: None, the usual one.
        Raises: DataError for an id that the shop never had.
        """
        count = len(item_ids)
        shown_ms = np.full(count, int(at.timestamp() * 1000), dtype=np.int64)
        frame = pl.DataFrame(
            {
                "user_id": [user_id] * count,
                "item_id": list(item_ids),
                "position": np.asarray(positions, dtype=np.int64),
                "shown_at": pl.Series(shown_ms).cast(INSTANT),
                "context_device": pl.Series([device] * count, dtype=pl.String),
            }
        )
        arrays = self.arrays_of(frame)
        feedback = self.draw_feedback(self.truth.probabilities(arrays), arrays.items, shown_ms, rng)
        return [
            Action(
                item_id=item_ids[row],
                position=int(positions[row]),
                kind=kind,
                value=value,
                occurred_at=datetime.fromtimestamp(occurred_ms / 1000, UTC),
            )
            for kind, row, value, occurred_ms in feedback.by_time()
        ]

    def draw_feedback(
        self, probabilities: Probabilities, items: IntArray, shown_ms: IntArray, rng: np.random.Generator
    ) -> SimulatedFeedback:
        """Draw feedback on impressions with these probabilities."""
        return draw_feedback(self.dials, probabilities, self.items.price[items], shown_ms, rng)

    def draw_users(self, day: int, number: int, rng: np.random.Generator) -> IntArray:
        """Draw user numbers [number] by activity, with repetition, among the users who exist on a day."""
        cumulative = np.cumsum(self.users.activity[self.users.arrival_day <= day])
        drawn: IntArray = np.searchsorted(cumulative, rng.random(number) * cumulative[-1])
        return drawn

    def items_frame(self, day: date) -> pl.DataFrame:
        """Return the day's rows of the items table: new items, and withdrawn ones with their end set."""
        number = self._day_number(day)
        chosen = np.flatnonzero((self.items.arrival_day == number) | (self.items.withdrawal_day == number))
        withdrawn = self.items.withdrawal_day[chosen] == number
        ends = np.where(withdrawn, number, 0) * DAY_MS + self.dials.first_ms
        starts = self.items.arrival_day[chosen] * DAY_MS + self.dials.first_ms
        return pl.DataFrame(
            {
                "item_id": self.item_ids(chosen),
                "title": [self.items.titles[i] for i in chosen],
                "description": [self.items.descriptions[i] for i in chosen],
                "category": [CATEGORIES[c] for c in self.items.category[chosen]],
                "price": self.items.price[chosen],
                "available_from": pl.Series(starts, dtype=pl.Int64).cast(INSTANT),
                "available_until": pl.Series(
                    [int(e) if w else None for e, w in zip(ends, withdrawn, strict=True)], dtype=pl.Int64
                ).cast(INSTANT),
            },
            schema_overrides={"title": pl.String, "description": pl.String, "category": pl.String},
        )

    def users_frame(self, day: date) -> pl.DataFrame:
        """Return the day's rows of the users table: new users."""
        chosen = np.flatnonzero(self.users.arrival_day == self._day_number(day))
        return pl.DataFrame(
            {
                "user_id": self.user_ids(chosen),
                "attribute_age_band": [AGE_BANDS[a] for a in self.users.age_band[chosen]],
                "attribute_country": [COUNTRIES[c] for c in self.users.country[chosen]],
                "attribute_usual_device": [DEVICES[d] for d in self.users.device[chosen]],
            },
            schema=dict.fromkeys(
                ("user_id", "attribute_age_band", "attribute_country", "attribute_usual_device"), pl.String
            ),
        )

    def user_ids(self, users: IntArray) -> list[str]:
        """Return users' ids by number."""
        return [f"u{number:06d}" for number in users]

    def item_ids(self, items: IntArray) -> list[str]:
        """Return items' ids by number."""
        return [f"i{number:06d}" for number in items]

    def user_numbers(self, ids: pl.Series) -> IntArray:
        """Read user numbers from ids; DataError for an id that the shop never had."""
        return _numbers(ids, "u", len(self.users.arrival_day))

    def item_numbers(self, ids: pl.Series) -> IntArray:
        """Read item numbers from ids; DataError for an id that the shop never had."""
        return _numbers(ids, "i", len(self.items.arrival_day))

    def _day_number(self, day: date) -> int:
        number = self.dials.day_number(day)
        if not 0 <= number < self.horizon:
            last = self.dials.date_of(self.horizon - 1)
            raise DataError(
                f"the simulated shop has days from {self.dials.first_day} to {last}, not {day}; "
                "build it with more extra_days"
            )
        return number


def _numbers(ids: pl.Series, prefix: str, count: int) -> IntArray:
    numbers = ids.str.strip_prefix(prefix).cast(pl.Int64, strict=False)
    wrong = numbers.is_null() | (numbers < 0) | (numbers >= count) | ~ids.str.starts_with(prefix)
    if wrong.any():
        raise DataError(
            f"{ids.name} {ids.filter(wrong)[0]!r} is not of this simulated shop, which has {count}; "
            "pass ids from its own log"
        )
    result: IntArray = numbers.to_numpy()
    return result
