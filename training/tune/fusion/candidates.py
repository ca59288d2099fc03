"""Requests whose candidate set was logged: predict all of it, and evaluate a fusion off-policy.

Estimator: at each logged place, with the logged items above it given, the fusion would pick its best of what
is left. Doubly robust (Dudik et al., ICML 2011): the prediction of that pick, plus, where the log shows just
that pick, the error of the prediction over its exact conditional propensity. Unbiased whatever the model.
"""

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
from recsys.metrics.columns import effective_rows
from recsys.schema import REQUEST_KEY
from recsys.snapshot import DaySnapshot
from recsys.tasks import TaskSpec
from training.data import EncodedRows
from training.evaluation.audience import item_codes
from training.evaluation.lists import item_side, predict_candidates, user_sides
from training.predict import BundlePredictor
from training.tune.fusion.value import Value, Vector, discount

CandidateSets = Mapping[tuple[str, str], pl.Series]
"""Request and user -> the ids of the logged candidates."""


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
    """[K]; NaN where it is not exact."""
    labels: Mapping[str, Vector]
    """[K]; NaN: not known."""

    def ranked(self, fusion: Fusion) -> npt.NDArray[np.int64]:
        """Give the candidates' numbers, best first."""
        return np.argsort(-fusion.score(self.predictions), kind="stable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A task's value by the doubly robust estimator, and how much of the log stands behind it."""

    value: Value
    effective: float
    """Effective number of places where the fusion's pick is what the log shows."""


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
        sets = _candidate_sets(log, days[i])
        encoded = predictor.encode_day(labelled, i, tasks)
        catalogue = item_rows(days.before(i), days[i])["item_id"]
        found += _choices(predictor, encoded, sets, catalogue)
    return found


@torch.no_grad()
def _choices(
    predictor: BundlePredictor, encoded: EncodedRows, sets: CandidateSets, catalogue: pl.Series
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
    logged = [_in_catalogue(sets[_request(group)], catalogue) for group in groups]
    found: list[Choice] = []
    start = 0
    for _, users, context_UC in user_sides(model, part):
        block = slice(start, start + len(users))
        start = block.stop
        of = (users, part.user_row[block], context_UC)
        predicted = predict_candidates(model, encoded, items, of, [codes for _, codes in logged[block]])
        for group, (item_ids, _), predictions in zip(groups[block], logged[block], predicted, strict=True):
            known = group.filter(pl.col("item_id").is_in(item_ids.implode()))
            if known.height:
                found.append(_choice(encoded, known, item_ids, predictions))
    return found


def _request(group: pl.DataFrame) -> tuple[str, str]:
    """Give the request and the user of a list's impressions."""
    request, user = group.select(REQUEST_KEY).row(0)
    return str(request), str(user)


def _in_catalogue(item_ids: pl.Series, catalogue: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """Give those items that the day's catalogue has, and their rows in it."""
    codes = item_codes(item_ids, catalogue)
    return item_ids.filter(pl.Series(codes >= 0)), codes[codes >= 0]


def _choice(
    encoded: EncodedRows,
    group: pl.DataFrame,
    item_ids: pl.Series,
    predictions: Mapping[str, npt.NDArray[np.float32]],
) -> Choice:
    rows = group["place"].to_numpy()
    request_id, user_id = _request(group)
    exact = pl.when(pl.col("propensity_kind") == "exact").then(pl.col("propensity"))
    return Choice(
        request_id=request_id,
        user_id=user_id,
        shown_at=group["shown_at"][0],
        item_ids=item_ids,
        predictions=predictions,
        shown=item_codes(group["item_id"], item_ids),
        position=group["position"].to_numpy().astype(np.int64),
        propensity=group.select(exact.cast(pl.Float64).fill_null(float("nan"))).to_series().to_numpy(),
        labels={task: values[rows].astype(np.float64) for task, values in encoded.labels.items()},
    )


def off_policy(
    choices: Sequence[Choice], fusion: Fusion, tasks: Sequence[TaskSpec], users: Mapping[str, int], k: int
) -> dict[str, Estimate]:
    """Estimate each task over all impressions under a fusion. Args: users: id -> number, 0..U-1."""
    parts = {task.name: (np.zeros(len(users)), np.zeros(len(users)), [np.zeros(0)]) for task in tasks}
    for choice in choices:
        matched = picks(choice, fusion)
        place = discount(choice.position, k)
        for name, (total, weight, matches) in parts.items():
            label = choice.labels[name]
            used = ~np.isnan(label) & ~np.isnan(choice.propensity) & (place > 0)
            prediction = choice.predictions[name].astype(np.float64)
            direct = prediction[matched[used]]
            hit = (matched == choice.shown)[used] / choice.propensity[used]
            gain = direct + hit * (label[used] - prediction[choice.shown[used]])
            user = users[choice.user_id]
            total[user] += float(place[used] @ gain)
            weight[user] += float(place[used].sum())
            matches.append(hit[hit > 0])
    return {
        name: Estimate(value=Value(total, weight), effective=effective_rows(np.concatenate(matches)))
        for name, (total, weight, matches) in parts.items()
    }


def picks(choice: Choice, fusion: Fusion) -> npt.NDArray[np.int64]:
    """Give, per shown place [K], the fusion's best candidate among those not shown above it."""
    order = choice.ranked(fusion)
    above: set[int] = set()
    found = np.empty(choice.shown.size, np.int64)
    for place, shown in enumerate(choice.shown.tolist()):
        found[place] = next(c for c in order.tolist() if c not in above)
        above.add(shown)
    return found


def _candidate_sets(log: InteractionLog, snapshot: DaySnapshot) -> CandidateSets:
    requests = snapshot.table("examples").select(*REQUEST_KEY, "shown_at").unique(REQUEST_KEY)
    shown = requests["shown_at"].dt.date()
    # A business day may lie beside the UTC one.
    near = timedelta(days=1)
    days = [d for d in log.days("requests") if shown.min() - near <= d <= shown.max() + near]  # type: ignore[operator]
    if not days:
        return {}
    frames = [log.read("requests", day) for day in days]
    logged = pl.concat(frames, how="diagonal_relaxed").filter(pl.col("candidates").list.len() > 1)
    logged = logged.join(requests, on=REQUEST_KEY, how="semi").unique(REQUEST_KEY)
    keys = ((str(request), str(user)) for request, user in logged.select(REQUEST_KEY).iter_rows())
    return dict(zip(keys, logged["candidates"], strict=True))
