"""Golden requests: recorded answers of a bundle, which a server must reproduce before it is ready.

Each row is one pseudonymous user's raw store value, the request, what encoding it gave, and the predictions
and retrieved items that followed. A difference anywhere (encoder, weights, index, numerics) is found before
traffic.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import polars as pl

from features.online import OnlineFeatures
from features.packing import PackedUser, pack_one, unpack_user
from features.store import StoredUser
from features.taken_events import TakenEvents
from recsys.errors import BundleError
from recsys.inputs import ContextInputs, CrossInputs, UserInputs
from recsys.mask import Mask
from recsys.tasks import TaskSpec
from recsys.user_past import UserPast
from recsys.user_sources import PastNumbers, UserSources
from recsys.vocabulary import UNKNOWN

TOLERANCE = {"fp32": 1e-4, "bf16": 5e-3}
"""Largest allowed difference of a calibrated prediction, as a share of its task's range, per numeric mode."""
USER_ID = "user_id"
NUM_RETRIEVED = 50
NUM_OF_PAST = 20
"""Items that a request's own past scores highest, by source."""


_OTHERWISE = (
    "golden request {user}: its stored values encode differently here than when it was made; the feature "
    "code changed: run the night again, in a new runs folder"
)
_MISSED = {
    "fp32": "this host does not reproduce the bundle; restore it, or serve it on a host like the one that "
    "made it",
    "bf16": "bfloat16 is not exact enough for this bundle",
}


class Scoring(Protocol):
    """What golden requests need of a scorer."""

    def user_side(self, user: UserInputs, past: PastNumbers) -> Any:
        """Encode one user. Args: past: what the ranker may read of it."""

    def retrieve(self, user: Any, k: int, allowed: Mask | None = None) -> np.ndarray:
        """Give nearest item rows."""

    def predict(self, user: Any, context: ContextInputs, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Give calibrated predictions."""

    def item_rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """Give the rows of items; -1 for unknown ones."""

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """List what is predicted."""

    @property
    def past(self) -> UserPast:
        """Give what scores items by what a user took."""


def make_golden(
    scorer: Scoring,
    online: OnlineFeatures,
    users: Sequence[tuple[str, bytes]],
    contexts: Sequence[dict[str, str | float]],
    num_items: int,
    at_ms: int,
) -> pl.DataFrame:
    """Answer one request per user and write down everything.

    Neither the user's id enters the file, nor its number: beside the vocabulary that would name the user.
    """
    rows = []
    for number, ((user_id, value), context) in enumerate(zip(users, contexts, strict=True)):
        user = online.assemble(StoredUser(value, ()), user_id, at_ms)
        inputs = _anonymous(user.inputs, online)
        chosen = np.random.default_rng(number).choice(num_items, min(20, num_items), replace=False)
        taken_rows = scorer.item_rows(user.taken.item_ids)
        past = scorer.past.of_user(taken_rows, user.taken.kinds, user.taken.at_ms, at_ms)
        answer = _answer(scorer, inputs, past, online.context(context, at_ms), np.sort(chosen))
        rows.append(
            {
                "user": f"golden-{number:03d}",  # a hash of a guessable id reveals the id
                "value": pack_one(_pseudonymous(unpack_user(value))).decode(),
                "context": json.dumps(context),
                "at_ms": at_ms,
                "rows": np.sort(chosen).tolist(),
                **_stored_inputs(inputs),
                **answer,
                **_stored_past(user.taken, taken_rows, past),
            }
        )
    return pl.DataFrame(rows)


def check_golden(
    golden: pl.DataFrame, scorer: Scoring, online: OnlineFeatures, mode: str = "fp32"
) -> dict[str, float]:
    """Reproduce golden requests.

    Returns: the largest difference of a prediction, as a share of its range (`max_difference`), and the
    smallest share of retrieved items that agree (`min_retrieved_overlap`).
    Raises: BundleError naming the request and what differs.
    """
    worst, whose, overlap = 0.0, "", 1.0
    for row in golden.iter_rows(named=True):
        inputs = _read_inputs(row)
        _check_encoding(row, inputs, online)
        context = online.context(json.loads(row["context"]), row["at_ms"])
        past = _past_of(row, scorer)
        answer = _answer(scorer, inputs, past, context, np.array(row["rows"], np.int64))
        for task in scorer.tasks:
            difference = _difference(task, answer, row)
            if difference > worst:
                worst, whose = difference, f" of {task.name}"
        _check_past(row, past, online)
        same = set(answer["retrieved"]) & set(row["retrieved"])
        overlap = min(overlap, len(same) / max(1, len(row["retrieved"])))
        if worst > TOLERANCE[mode] or overlap < 0.9:
            raise BundleError(
                f"golden request {row['user']}: predictions{whose} differ by {worst:.2e} of their range "
                f"(at most {TOLERANCE[mode]:.0e}), {overlap:.0%} of retrieved items agree (at least 90%): "
                f"{_MISSED[mode]}"
            )
    return {"max_difference": worst, "min_retrieved_overlap": overlap, "requests": float(golden.height)}


def golden_requests(
    golden: pl.DataFrame, online: OnlineFeatures, num: int
) -> list[tuple[UserInputs, ContextInputs]]:
    """Read users and contexts of the first golden requests, at most so many."""
    return [
        (_read_inputs(row), online.context(json.loads(row["context"]), row["at_ms"]))
        for row in golden.head(num).iter_rows(named=True)
    ]


def _anonymous(inputs: UserInputs, online: OnlineFeatures) -> UserInputs:
    """Let a user's inputs have the number of an unknown user."""
    ids = inputs.ids.copy()
    for i, feature in enumerate(online.encoder.features.ids_of("user")):
        if feature.name == USER_ID:
            ids[..., i] = UNKNOWN
    return replace(inputs, ids=ids)


def _answer(
    scorer: Scoring, inputs: UserInputs, past: UserSources, context: ContextInputs, rows: np.ndarray
) -> dict[str, Any]:
    side = scorer.user_side(inputs, past.read)
    predictions = scorer.predict(side, context, rows)
    found: dict[str, Any] = {f"prediction_{task}": values.tolist() for task, values in predictions.items()}
    found["retrieved"] = scorer.retrieve(side, NUM_RETRIEVED).tolist()
    return found


def _difference(task: TaskSpec, answer: dict[str, Any], row: dict[str, Any]) -> float:
    """Give the largest difference of a task's predictions, as a share of their range; inf for no number."""
    name, (low, high) = f"prediction_{task.name}", task.prediction_range
    difference = float(np.abs(np.array(answer[name]) - np.array(row[name])).max(initial=0.0))
    return math.inf if math.isnan(difference) else difference / (high - low)


def _stored_past(taken: TakenEvents, rows: np.ndarray, past: UserSources) -> dict[str, list[Any]]:
    """Give what the user took, as rows, the items that this scores highest, and their scores."""
    found: dict[str, list[Any]] = {
        "taken_rows": rows.tolist(),
        "taken_kinds": list(taken.kinds),
        "taken_at_ms": taken.at_ms.tolist(),
    }
    for name, scores in (("item_item", past.item_item), ("repeat", past.repeat)):
        best = np.sort(scores.best(NUM_OF_PAST, lambda rows: rows >= 0))
        found[f"{name}_rows"], found[f"{name}_scores"] = best.tolist(), scores.of(best).tolist()
    return found


def _past_of(row: dict[str, Any], scorer: Scoring) -> UserSources:
    """Score the stored past again; bundles of schema version 7 and before have none.

    Rows are stored, not looked up again: a server has its table of ids elsewhere.
    """
    if "taken_rows" not in row:
        return UserSources()
    at_ms = np.array(row["taken_at_ms"], np.int64)
    return scorer.past.of_user(np.array(row["taken_rows"], np.int64), row["taken_kinds"], at_ms, row["at_ms"])


def _check_past(row: dict[str, Any], past: UserSources, online: OnlineFeatures) -> None:
    """Read the stored past again, and compare its scores."""
    if "taken_rows" not in row:
        return
    taken = online.assemble(StoredUser(row["value"].encode(), ()), "", row["at_ms"]).taken
    if list(taken.kinds) != row["taken_kinds"] or taken.at_ms.tolist() != row["taken_at_ms"]:
        raise BundleError(_OTHERWISE.format(user=row["user"]))
    for name, scores in (("item_item", past.item_item), ("repeat", past.repeat)):
        again = scores.of(np.array(row[f"{name}_rows"], np.int64))
        wanted = np.array(row[f"{name}_scores"], np.float32)
        if not np.allclose(again, wanted, rtol=1e-4, atol=1e-6):
            raise BundleError(
                f"golden request {row['user']}: {name} scores from the user's past differ by up to "
                f"{np.abs(again - wanted).max():.2e} from the stored ones: this host does not reproduce the "
                "bundle; restore it, or serve it on a host like the one that made it"
            )


def _check_encoding(row: dict[str, Any], inputs: UserInputs, online: OnlineFeatures) -> None:
    """Encode the raw values again; everything but the hidden user id must come out the same."""
    again = online.assemble(StoredUser(row["value"].encode(), ()), "", row["at_ms"]).inputs
    names = [f.name for f in online.encoder.features.ids_of("user")]
    ids = [i for i, name in enumerate(names) if name != USER_ID]
    same = (
        np.array_equal(again.ids[ids], inputs.ids[ids])
        and np.allclose(again.numbers, inputs.numbers, rtol=0, atol=1e-6)
        and np.array_equal(again.history_items, inputs.history_items)
        and np.array_equal(again.history_kinds, inputs.history_kinds)
        and np.array_equal(again.history_ages, inputs.history_ages)
        and (
            "input_history_minutes" not in row
            or np.array_equal(again.history_minutes, inputs.history_minutes)
        )
        and all(map(np.array_equal, again.bags, inputs.bags))
        and all(map(_same_cross, again.crosses, inputs.crosses))
    )
    if not same:
        raise BundleError(_OTHERWISE.format(user=row["user"]))


def _same_cross(one: CrossInputs, other: CrossInputs) -> bool:
    return one.keys == other.keys and np.allclose(one.numbers, other.numbers, rtol=0, atol=1e-6)


def _pseudonymous(user: PackedUser) -> PackedUser:
    """Number the events in the order of their ids: events of one instant keep their order without them."""
    ordered = sorted(user.tail, key=lambda e: (e.received_at_ms, e.feedback_id))
    numbered = {e.feedback_id: f"{n:06d}" for n, e in enumerate(ordered)}
    return PackedUser(
        row=user.row,
        tail=tuple(e._replace(feedback_id=numbered[e.feedback_id]) for e in ordered),
        void_at={numbered[f]: at for f, at in user.void_at.items()},
        crosses=user.crosses,
        taken=user.taken,
    )


_ARRAYS = ("ids", "numbers", "history_items", "history_kinds", "history_ages", "history_minutes")


def _stored_inputs(inputs: UserInputs) -> dict[str, object]:
    return {
        **{f"input_{name}": getattr(inputs, name).tolist() for name in _ARRAYS},
        "input_bags": json.dumps([values.tolist() for values in inputs.bags]),
        "input_crosses": json.dumps([[c.keys, c.numbers.tolist()] for c in inputs.crosses]),
    }


def _read_inputs(row: dict[str, Any]) -> UserInputs:
    return UserInputs(
        ids=np.array(row["input_ids"], np.int64),
        numbers=np.array(row["input_numbers"], np.float32),
        history_items=np.array(row["input_history_items"], np.int64),
        history_kinds=np.array(row["input_history_kinds"], np.int64),
        history_ages=np.array(row["input_history_ages"], np.int64),
        # Bundles of before have none, and models that read none.
        history_minutes=np.array(
            row.get("input_history_minutes", [0] * len(row["input_history_ages"])), np.int64
        ),
        bags=tuple(np.array(values, np.int64) for values in json.loads(row["input_bags"])),
        crosses=tuple(
            CrossInputs(tuple(keys), np.array(numbers, np.float32))
            for keys, numbers in json.loads(row["input_crosses"])
        ),
    )
