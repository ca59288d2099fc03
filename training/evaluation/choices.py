"""Requests whose candidate set was logged: all of it scored as a server would, and the rules of the list.

A request's state is that of its instant, for the heads and for the sources: what its user did during the day
until then counts. Item values, the item-item table and the popular items are those of the end of the day
before, as if the bundle had been published anew that night.

Legend: C candidates, K places shown.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from features.build import item_rows
from features.days import Days
from features.definitions import past_names
from recsys.errors import ConfigError
from recsys.fusion import Fusion
from recsys.log import InteractionLog
from recsys.metrics.columns import Vector
from recsys.policy import POLICIES, PolicyInput, PolicyParameters
from recsys.schema import REQUEST_KEY
from recsys.snapshot import DaySnapshot
from recsys.source_terms import OF_PAST
from recsys.user_sources import UserSources
from training.data import EncodedRows
from training.evaluation.audience import category_codes, item_codes
from training.evaluation.candidates import Sources
from training.evaluation.lists import item_side, predict_candidates, user_sides
from training.predict import BundlePredictor, ListModel


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedSet:
    """What the log says of a request beside its impressions."""

    item_ids: pl.Series
    """[C]."""
    rules: PolicyParameters
    pins: Mapping[int, str]
    """Position in the list, from 0 -> item."""
    head_weights: Mapping[str, float]
    """The weights that the application sent with the request."""
    bundle_version: str
    """Of what made the list; empty: not known."""


_NO_PAST = UserSources()
_SIMILAR = "similar"
"""Call whose lists are sorted by the likeness to an item: no fused score would have made them."""
CandidateSets = Mapping[tuple[str, str], LoggedSet]
"""By request and user."""
_FIRST_DAY = "of the log's first day: what the sources knew then is in no snapshot"
_NOT_LISTED = "of which the day's catalogue has no shown item"
_OTHER_TASKS = "whose own head_weights name what this bundle does not have, or cannot weigh so"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One request: its candidates [C], and what was shown of them [K], in order of position."""

    request_id: str
    user_id: str
    shown_at: datetime
    item_ids: pl.Series
    predictions: Mapping[str, npt.NDArray[np.float32]]
    sources: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """[C]: of each source that has a weight in the bundle's score, or in the request's own."""
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
    repeats: npt.NDArray[np.bool_] | None = None
    """[C]: the user had taken it before; where the rules have `max_repeats`, None if that is not known."""
    head_weights: Mapping[str, float] = field(default_factory=dict)
    """The request's own weights: they replace those of any score, as on a server."""
    bundle_version: str = ""
    """Of what made the list; empty: not known."""
    unlisted: int = 0
    """Logged candidates that the day's catalogue lacks: they are not among these."""
    unpinned: int = 0
    """Logged pins whose item is none of these: their places are drawn here as any other."""

    def score(self, fusion: Fusion) -> npt.NDArray[np.float64]:
        """Score the candidates [C] as a server with this fusion would."""
        return fusion.override(self.head_weights).score(self.predictions, self.sources)

    def policy_input(self, fusion: Fusion) -> PolicyInput:
        """Give the candidates as a policy reads them, scored by a fusion."""
        return PolicyInput(
            scores=self.score(fusion),
            categories=self.categories,
            embeddings=self.embeddings,
            repeats=self.repeats,
            pins=self.pins,
        )

    def ranked(self, fusion: Fusion) -> npt.NDArray[np.int64]:
        """Give the candidates' numbers, best first."""
        return np.argsort(-self.score(fusion), kind="stable")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChoices:
    """The requests of some days whose candidates were logged."""

    choices: list[Choice]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Why -> number of requests."""

    def notes(self) -> list[str]:
        """Say what was left out."""
        said = "requests with logged candidates are left out"
        notes = [f"{count:,} {said}: {why}" for why, count in self.left_out.items()]
        cut = sum(choice.unlisted > 0 for choice in self.choices)
        if cut:
            notes.append(
                f"{cut:,} requests have candidates that the day's catalogue lacks: none shows them here"
            )
        free = sum(choice.unpinned > 0 for choice in self.choices)
        if free:
            notes.append(
                f"{free:,} requests have pins whose item the day's catalogue lacks: what stands there is "
                "chosen here"
            )
        return notes


def read_choices(
    predictor: BundlePredictor,
    log: InteractionLog,
    days: Days,
    places: Sequence[int],
) -> LoggedChoices:
    """Score every logged candidate of some days' requests; requests without a logged set are not read."""
    tasks = predictor.bundle.config.tasks
    labelled = days.labelled_for(tasks)
    found: list[Choice] = []
    left_out: Counter[str] = Counter()
    for i in places:
        sets = _candidate_sets(log, days[i], PolicyParameters.rules_of(predictor.bundle.config.policy))
        sets = _scorable(predictor.lists, i, sets, left_out)
        if sets:
            found += _choices(predictor, labelled, i, sets, left_out)
    return LoggedChoices(choices=found, left_out=dict(left_out))


def _scorable(model: ListModel, i: int, sets: CandidateSets, left_out: Counter[str]) -> CandidateSets:
    """Keep the sets whose score under a bundle can be known."""
    kept = {}
    for key, of_list in sets.items():
        try:
            fusion = model.fusion.override(of_list.head_weights)
        except ConfigError:
            left_out[_OTHER_TASKS] += 1
            continue
        if not i and fusion.sources.weights:
            left_out[_FIRST_DAY] += 1
            continue
        kept[key] = of_list
    return kept


@torch.no_grad()
def _choices(
    predictor: BundlePredictor, days: Days, i: int, sets: CandidateSets, left_out: Counter[str]
) -> list[Choice]:
    model = predictor.lists
    catalogue = item_rows(days.before(i), days[i])
    encoded = predictor.encode_day(days, i, model.config.tasks)
    groups = _lists_of(encoded.frame, sets)
    if not groups:
        return []
    part = encoded.take(np.array([group["place"][0] for group in groups], np.int64))
    predictor.ranker.eval()
    items, categories = item_side(model, encoded.items), category_codes(catalogue)
    embeddings = items.embedding_BD.cpu().numpy()
    asked = [sets[_request(group)] for group in groups]
    logged = _in_catalogue([of_list.item_ids for of_list in asked], catalogue["item_id"])
    requests = part.frame.select("user_id", "shown_at")
    sources = _DaySources.of(model, days, i, requests, asked, catalogue["item_id"])
    found: list[Choice] = []
    start = 0
    for vectors_UD, users, context_UC in user_sides(model, part):
        block = slice(start, start + len(users))
        of = (users, part.user_row[block], context_UC)
        rows = [codes for _, codes in logged[block]]
        numbers = [sources.numbers(start + u, codes) for u, codes in enumerate(rows)]
        predicted = predict_candidates(model, encoded, items, of, rows, numbers)
        for number, predictions, vector in zip(
            range(block.start, block.stop), predicted, vectors_UD.cpu().numpy(), strict=True
        ):
            (item_ids, codes), of_list = logged[number], asked[number]
            known = groups[number].filter(pl.col("item_id").is_in(item_ids.implode()))
            if not known.height:
                left_out[_NOT_LISTED] += 1
                continue
            of_items = _Candidates(
                item_ids=item_ids,
                predictions=predictions,
                sources=sources.scores(number, of_list, codes, embeddings, vector),
                repeats=sources.repeats(number, of_list, codes),
                categories=categories[codes],
                embeddings=embeddings[codes] if of_list.rules.mmr else None,
            )
            found.append(_choice(encoded, known, of_list, of_items))
        start = block.stop
    return found


def _lists_of(frame: pl.DataFrame, sets: CandidateSets) -> list[pl.DataFrame]:
    """Give the impressions of each request with a set, in order of position, with their `place`."""
    rows = frame.with_row_index("place").filter(pl.col("request_id").is_in([r for r, _ in sets]))
    parts = rows.sort(*REQUEST_KEY, "position", "place").partition_by(REQUEST_KEY, maintain_order=True)
    return [group for group in parts if _request(group) in sets]


def _request(group: pl.DataFrame) -> tuple[str, str]:
    """Give the request and the user of a list's impressions."""
    request, user = group.select(REQUEST_KEY).row(0)
    return str(request), str(user)


def _in_catalogue(sets: Sequence[pl.Series], catalogue: pl.Series) -> list[tuple[pl.Series, np.ndarray]]:
    """Give those items of each set that the day's catalogue has, and their rows in it."""
    stops = np.cumsum([item_ids.len() for item_ids in sets])[:-1]
    by_set = np.split(item_codes(pl.concat(sets), catalogue), stops)
    return [
        (item_ids.filter(pl.Series(codes >= 0)), codes[codes >= 0])
        for item_ids, codes in zip(sets, by_set, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The candidates [C] of a request that the catalogue has."""

    item_ids: pl.Series
    predictions: Mapping[str, npt.NDArray[np.float32]]
    sources: Mapping[str, npt.NDArray[np.float32]]
    repeats: npt.NDArray[np.bool_] | None
    categories: npt.NDArray[np.int64]
    embeddings: npt.NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _DaySources:
    """What the sources say of the candidates of one day's requests [R], in the state of each request."""

    fusion: Fusion
    at_requests: Sources | None
    """None: no source has a weight in any of them, or it is the log's first day."""
    num_read: int
    """Numbers by the user's past that the ranker reads of a candidate."""

    @classmethod
    def of(
        cls,
        model: ListModel,
        days: Days,
        i: int,
        requests: pl.DataFrame,
        asked: Sequence[LoggedSet],
        ids: pl.Series,
    ) -> "_DaySources":
        read = past_names(model.config)
        names = {n for of_list in asked for n in _weighed(model.fusion, of_list)}
        wanted = {*names, "item_item"} if read else names
        if not i or not (wanted or any(of_list.rules.max_repeats for of_list in asked)):
            return cls(fusion=model.fusion, at_requests=None, num_read=len(read))
        counted = Sources.of_requests(days, i, requests, ids, model, wanted)
        return cls(fusion=model.fusion, at_requests=counted, num_read=len(read))

    def numbers(self, number: int, codes: np.ndarray) -> np.ndarray:
        """Give what the ranker reads of a request's candidates by their past [C, F]; 0 on the first day."""
        if self.at_requests is None or not self.num_read:
            return np.zeros((codes.size, self.num_read), np.float32)
        return self.at_requests.numbers(number, self.past(number), self.fusion.sources, codes)

    def scores(
        self,
        number: int,
        of_list: LoggedSet,
        codes: np.ndarray,
        embeddings_ID: np.ndarray,
        vector_D: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Score a request's candidates by each source that has a weight in its score.

        Args: embeddings_ID, vector_D: unit vectors of the day's catalogue, and of the request's user.
        """
        names = _weighed(self.fusion, of_list)
        if not names or self.at_requests is None:
            return {}
        past = _NO_PAST if OF_PAST.isdisjoint(names) else self.past(number)
        found = self.at_requests.scores(past, codes)
        if "retrieval" in names:
            found["retrieval"] = embeddings_ID[codes] @ vector_D
        return {name: found[name] for name in names}

    def repeats(self, number: int, of_list: LoggedSet, codes: np.ndarray) -> npt.NDArray[np.bool_] | None:
        """Tell which candidates the user had taken before, where the rules ask."""
        if not of_list.rules.max_repeats or self.at_requests is None:
            return None
        repeats: npt.NDArray[np.bool_] = self.past(number).repeat.of(codes) > 0
        return repeats

    def past(self, number: int) -> UserSources:
        assert self.at_requests is not None
        return self.at_requests.of_user(number, self.fusion.sources)


def _weighed(fusion: Fusion, of_list: LoggedSet) -> Iterable[str]:
    """Name the sources with a weight in a request's score."""
    return fusion.override(of_list.head_weights).sources.weights


def _choice(encoded: EncodedRows, group: pl.DataFrame, of_list: LoggedSet, of_items: _Candidates) -> Choice:
    rows = group["place"].to_numpy()
    request_id, user_id = _request(group)
    item_ids = of_items.item_ids
    number = {item_id: candidate for candidate, item_id in enumerate(item_ids.to_list())}
    pins = {at: number[item] for at, item in of_list.pins.items() if item in number}
    return Choice(
        request_id=request_id,
        user_id=user_id,
        shown_at=group["shown_at"][0],
        item_ids=item_ids,
        predictions=of_items.predictions,
        sources=of_items.sources,
        shown=np.array([number[item_id] for item_id in group["item_id"]], np.int64),
        position=group["position"].to_numpy().astype(np.int64),
        propensity=group["propensity"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        kind=tuple(group["propensity_kind"].to_list()),
        labels={task: values[rows].astype(np.float64) for task, values in encoded.labels.items()},
        rules=of_list.rules,
        categories=of_items.categories,
        embeddings=of_items.embeddings,
        pins=pins,
        repeats=of_items.repeats,
        head_weights=of_list.head_weights,
        bundle_version=of_list.bundle_version,
        unlisted=of_list.item_ids.len() - item_ids.len(),
        unpinned=len(of_list.pins) - len(pins),
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
            head_weights=dict(known.get("head_weights", {})) if ours else {},
            bundle_version=str(row.get("bundle_version") or ""),
        )
    return found
