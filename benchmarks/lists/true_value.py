"""The true value of pages of the simulated shop: expectations by its own probabilities, nothing is drawn.

    value of a page = sum over places of examination(place) * sum over tasks of fusion weight * task value

The task value of an item is its chance of a click, its chance of a purchase, or the stars that are expected
of it: a place that nobody looks at earns nothing. So the page sorted by the items' own sums is the best one.
Legend: U requests, J items, K places.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

import recsys.simulator
from recsys.fusion import Fusion
from recsys.simulator.ground_truth import GroundTruth, ImpressionArrays
from recsys.simulator.shop import Shop

TASKS = ("click", "purchase", "rating")
"""Of the packaged config, in the order of the simulator."""
_REQUESTS_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PageValue:
    """What is expected of each request's page [U]."""

    value: np.ndarray
    clicks: np.ndarray
    purchases: np.ndarray
    stars: np.ndarray
    """Mean of the page's items, by how likely each place is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueValue:
    """The truth of U requests: of each of J items as if it were looked at, float32 [U, J]."""

    of_task: Mapping[str, np.ndarray]
    fusion: Fusion
    truth: GroundTruth

    @classmethod
    def of(cls, shop: Shop, requests: pl.DataFrame, item_ids: pl.Series, fusion: Fusion) -> "TrueValue":
        """Compute it. Args: requests [U]: user_id, shown_at, context_device; item_ids [J]."""
        asked = shop.arrays_of(requests.with_columns(item_id=pl.lit(item_ids[0]), position=pl.lit(1)))
        items = shop.item_numbers(item_ids)
        parts = [
            _of_some(shop.truth, asked, items, slice(start, start + _REQUESTS_AT_ONCE))
            for start in range(0, requests.height, _REQUESTS_AT_ONCE)
        ]
        of_task = {task: np.concatenate([part[task] for part in parts]) for task in TASKS}
        return cls(of_task=of_task, fusion=fusion, truth=shop.truth)

    def score(self) -> np.ndarray:
        """Give what an item is truly worth where it is looked at: [U, J]."""
        flat = {task: values.ravel() for task, values in self.of_task.items()}
        found: np.ndarray = self.fusion.score(flat).reshape(self.of_task[TASKS[0]].shape)
        return found

    def of_pages(self, pages: np.ndarray) -> PageValue:
        """Value pages: columns of the items [U, K], best first; -1: an empty place, which earns nothing."""
        examination = self.truth.examination(np.arange(1, pages.shape[1] + 1))
        seen = np.where(pages >= 0, examination, 0.0)
        rows = np.arange(pages.shape[0])[:, None]
        shown = {task: seen * values[rows, pages] for task, values in self.of_task.items()}
        sums = {task: values.sum(axis=1) for task, values in shown.items()}
        weights = {task: term.weight for task, term in self.fusion.terms.items()}
        return PageValue(
            value=np.sum([weights[task] * sums[task] for task in TASKS], axis=0),
            clicks=sums["click"],
            purchases=sums["purchase"],
            stars=sums["rating"] / np.maximum(seen.sum(axis=1), 1e-9),
        )


def measure_hash() -> str:
    """Hash the simulator, its config and this file: figures with another hash are of another measure."""
    simulator = Path(recsys.simulator.__path__[0])
    files = [*sorted(simulator.glob("*.py")), simulator.parent / "shop.toml", Path(__file__)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _of_some(
    truth: GroundTruth, asked: ImpressionArrays, items: np.ndarray, part: slice
) -> dict[str, np.ndarray]:
    users = asked.users[part]
    arrays = ImpressionArrays(
        items=np.tile(items, users.size),
        positions=None,
        **{
            name: np.repeat(getattr(asked, name)[part], items.size)
            for name in ("users", "days", "hours", "devices")
        },
    )
    found = truth.probabilities(arrays)
    values = {
        "click": found.click,
        "purchase": found.click * found.purchase_given_click,
        "rating": truth.expected_rating(found),
    }
    shape = (users.size, items.size)
    return {task: of.astype(np.float32).reshape(shape) for task, of in values.items()}
