"""Requests whose candidate set was logged: predict all of it, and read the rules that made the list.

Legend: C candidates, K places shown.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from features.build import item_rows
from features.days import Days
from recsys.fusion import Fusion
from recsys.log import InteractionLog
from recsys.metrics.columns import Vector
from recsys.policy import POLICIES, PolicyInput, PolicyParameters
from recsys.schema import REQUEST_KEY
from recsys.snapshot import DaySnapshot
from training.data import EncodedRows
from training.evaluation.audience import category_codes, item_codes
from training.evaluation.lists import item_side, predict_candidates, user_sides
from training.predict import BundlePredictor


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedSet:
    """What the log says of a request beside its impressions."""

    item_ids: pl.Series
    """[C]."""
    rules: PolicyParameters
    pins: Mapping[int, str]
    """Position in the list, from 0 -> item."""


_SIMILAR = "similar"
"""Call whose lists are sorted by the likeness to an item: no fused score would have made them."""
CandidateSets = Mapping[tuple[str, str], LoggedSet]
"""By request and user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One request: its candidates [C], and what was shown of them [K], in order of position."""

    request_id: str
    user_id: str
    shown_at: datetime
    item_ids: pl.Series
    predictions: Mapping[str, npt.NDArray[np.float32]]
    shown: npt.NDArray[np.int64]
    """[K]: numbers of candidates."""
    position: npt.NDArray[np.int64]
    propensity: Vector
    """[K]; NaN where there is none."""
    kind: tuple[str, ...]
    """[K]: of the propensity."""
    labels: Mapping[str, Vector]
    """[K]; NaN: not known."""
    rules: PolicyParameters
    """Of the policy that made the list; where it is not ours, the bundle's with default exploration."""
    categories: npt.NDArray[np.int64]
    """[C]; negative: no category."""
    embeddings: npt.NDArray[np.float32] | None = None
    """[C, D] unit vectors, where the rules have a similarity penalty."""
    pins: Mapping[int, int]
    """Position in the list, from 0 -> candidate."""

    def policy_input(self, fusion: Fusion) -> PolicyInput:
        """Give the candidates as a policy reads them, scored by a fusion."""
        return PolicyInput(
            scores=fusion.score(self.predictions).astype(np.float64),
            categories=self.categories,
            embeddings=self.embeddings,
            pins=self.pins,
        )

    def ranked(self, fusion: Fusion) -> npt.NDArray[np.int64]:
        """Give the candidates' numbers, best first."""
        return np.argsort(-fusion.score(self.predictions), kind="stable")


def read_choices(
    predictor: BundlePredictor,
    log: InteractionLog,
    days: Days,
    places: Sequence[int],
) -> list[Choice]:
    """Predict every logged candidate of some days' requests; requests without a logged set are left out."""
    tasks = predictor.bundle.config.tasks
    labelled = days.labelled_for(tasks)
    found: list[Choice] = []
    for i in places:
        sets = _candidate_sets(log, days[i], PolicyParameters.rules_of(predictor.bundle.config.policy))
        encoded = predictor.encode_day(labelled, i, tasks)
        catalogue = item_rows(days.before(i), days[i])
        found += _choices(predictor, encoded, sets, catalogue)
    return found


@torch.no_grad()
def _choices(
    predictor: BundlePredictor, encoded: EncodedRows, sets: CandidateSets, catalogue: pl.DataFrame
) -> list[Choice]:
    frame = encoded.frame.with_row_index("place").filter(pl.col("request_id").is_in([r for r, _ in sets]))
    parts = frame.sort(*REQUEST_KEY, "position", "place").partition_by(REQUEST_KEY, maintain_order=True)
    groups = [group for group in parts if _request(group) in sets]
    if not groups:
        return []
    first = np.array([group["place"][0] for group in groups], np.int64)
    part = encoded.take(first)
    predictor.ranker.eval()
    model = predictor.lists
    items = item_side(model, encoded.items)
    logged = [_in_catalogue(sets[_request(group)].item_ids, catalogue["item_id"]) for group in groups]
    categories, embeddings = category_codes(catalogue), items.embedding_BD.cpu().numpy()
    found: list[Choice] = []
    start = 0
    for _, users, context_UC in user_sides(model, part):
        block = slice(start, start + len(users))
        start = block.stop
        of = (users, part.user_row[block], context_UC)
        predicted = predict_candidates(model, encoded, items, of, [codes for _, codes in logged[block]])
        for group, (item_ids, codes), predictions in zip(
            groups[block], logged[block], predicted, strict=True
        ):
            known = group.filter(pl.col("item_id").is_in(item_ids.implode()))
            if known.height:
                of_list = sets[_request(group)]
                similar = embeddings[codes] if of_list.rules.mmr else None
                of_items = _Candidates(item_ids, predictions, categories[codes], similar)
                found.append(_choice(encoded, known, of_list, of_items))
    return found


def _request(group: pl.DataFrame) -> tuple[str, str]:
    """Give the request and the user of a list's impressions."""
    request, user = group.select(REQUEST_KEY).row(0)
    return str(request), str(user)


def _in_catalogue(item_ids: pl.Series, catalogue: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """Give those items that the day's catalogue has, and their rows in it."""
    codes = item_codes(item_ids, catalogue)
    return item_ids.filter(pl.Series(codes >= 0)), codes[codes >= 0]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The candidates [C] of a request that the catalogue has."""

    item_ids: pl.Series
    predictions: Mapping[str, npt.NDArray[np.float32]]
    categories: npt.NDArray[np.int64]
    embeddings: npt.NDArray[np.float32] | None


def _choice(encoded: EncodedRows, group: pl.DataFrame, of_list: LoggedSet, of_items: _Candidates) -> Choice:
    rows = group["place"].to_numpy()
    request_id, user_id = _request(group)
    item_ids = of_items.item_ids
    number = {item_id: candidate for candidate, item_id in enumerate(item_ids.to_list())}
    return Choice(
        request_id=request_id,
        user_id=user_id,
        shown_at=group["shown_at"][0],
        item_ids=item_ids,
        predictions=of_items.predictions,
        shown=item_codes(group["item_id"], item_ids),
        position=group["position"].to_numpy().astype(np.int64),
        propensity=group["propensity"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        kind=tuple(group["propensity_kind"].to_list()),
        labels={task: values[rows].astype(np.float64) for task, values in encoded.labels.items()},
        rules=of_list.rules,
        categories=of_items.categories,
        embeddings=of_items.embeddings,
        pins={at: number[item] for at, item in of_list.pins.items() if item in number},
    )


def _candidate_sets(log: InteractionLog, snapshot: DaySnapshot, otherwise: PolicyParameters) -> CandidateSets:
    requests = snapshot.table("examples").select(*REQUEST_KEY, "shown_at").unique(REQUEST_KEY)
    if requests.is_empty():
        return {}
    shown = requests["shown_at"].dt.date()
    # A business day may lie beside the UTC one.
    near = timedelta(days=1)
    days = [d for d in log.days("requests") if shown.min() - near <= d <= shown.max() + near]  # type: ignore[operator]
    if not days:
        return {}
    frames = [log.read("requests", day) for day in days]
    logged = pl.concat(frames, how="diagonal_relaxed").filter(pl.col("candidates").list.len() > 1)
    logged = logged.join(requests, on=REQUEST_KEY, how="semi").unique(REQUEST_KEY)
    found = {}
    for row in logged.iter_rows(named=True):
        known = json.loads(row["policy_parameters"] or "{}")
        ours = row["policy"] in POLICIES
        if ours and known.get("call") == _SIMILAR:
            continue
        found[str(row["request_id"]), str(row["user_id"])] = LoggedSet(
            item_ids=pl.Series(row["candidates"], dtype=pl.String),
            rules=PolicyParameters.of_log(row["policy"], known) if ours else otherwise,
            pins={int(at) - 1: str(item) for at, item in known.get("pins", {}).items()} if ours else {},
        )
    return found
