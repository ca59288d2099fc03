"""Converts answers, feedback and items to journal rows, with the columns of the canonical tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

from recsys.errors import DataError
from recsys.item_patches import ATTRIBUTES, FIELDS, TABLE, sent_fields
from recsys.journal import Rows, Value
from recsys.schema import ATTRIBUTE_PREFIX, CONTEXT_PREFIX
from serving.catalogue.items import FieldValue, ItemPatch
from serving.request import RankedList, RankRequest

_MAX_LISTED = 100
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackEvent:
    """One row of the canonical feedback table."""

    feedback_id: str
    impression_id: str | None
    user_id: str
    item_id: str
    kind: str
    value: float | None
    occurred_at_ms: int
    received_at_ms: int
    merged_from: str | None = None


def answer_rows(request: RankRequest, answer: RankedList) -> list[Rows]:
    """Convert a page: its request and its impressions."""
    context = _context(request)
    rows = [Rows(table="requests", same=_request_row(request, answer, context))]
    if answer.items:
        rows.append(_impressions(request, answer, context))
    return rows


def feedback_rows(events: Sequence[FeedbackEvent]) -> Rows:
    """Convert a batch of feedback."""
    return Rows(
        table="feedback",
        each={
            "feedback_id": [e.feedback_id for e in events],
            "impression_id": [e.impression_id for e in events],
            "user_id": [e.user_id for e in events],
            "item_id": [e.item_id for e in events],
            "kind": [e.kind for e in events],
            "value": [e.value for e in events],
            "occurred_at": [e.occurred_at_ms for e in events],
            "received_at": [e.received_at_ms for e in events],
            "merged_from": [e.merged_from for e in events],
        },
    )


def read_feedback(rows: Rows) -> Iterator[FeedbackEvent]:
    """Convert journal rows of feedback back. A row that is none is left out, with a log entry."""
    for values in _by_row(rows):
        try:
            yield _feedback_event(values)
        except (KeyError, TypeError, ValueError) as error:
            _log.error("feedback_row_skipped", error=f"{type(error).__name__}: {error}")


def _feedback_event(values: Mapping[str, object]) -> FeedbackEvent:
    value, impression, session = (values.get(n) for n in ("value", "impression_id", "merged_from"))
    return FeedbackEvent(
        feedback_id=str(values["feedback_id"]),
        impression_id=None if impression is None else str(impression),
        user_id=str(values["user_id"]),
        item_id=str(values["item_id"]),
        kind=str(values["kind"]),
        value=None if value is None else float(value),  # type: ignore[arg-type]
        occurred_at_ms=int(values["occurred_at"]),  # type: ignore[call-overload]
        received_at_ms=int(values["received_at"]),  # type: ignore[call-overload]
        merged_from=None if session is None else str(session),
    )


def item_patch_rows(patches: Sequence[ItemPatch]) -> Rows:
    """Convert a batch of upserts: what was sent, and nothing of the rows that it changes.

    `fields` lists what a patch writes, so that a null there clears a field; "attributes" clears those that
    are not listed.
    """
    sent = [_sent(patch) for patch in patches]
    each: dict[str, list[Value]] = {
        "item_id": [patch.item_id for patch in patches],
        "fields": [
            sorted({*values} | ({ATTRIBUTES} if patch.whole_attributes else set()))
            for patch, values in zip(patches, sent, strict=True)
        ],
    }
    for name in sorted({name for values in sent for name in values}):
        each[name] = [values.get(name) for values in sent]
    return Rows(table=TABLE, each=each)


def _sent(patch: ItemPatch) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, value in patch.fields.items():
        if isinstance(value, Mapping):
            values |= {f"{ATTRIBUTE_PREFIX}{key}": entry for key, entry in value.items()}
        elif name != "attributes":
            values[name] = value
    return values


def read_item_patches(at_ms: int, rows: Rows) -> Iterator[ItemPatch]:
    """Convert journal rows of upserts back: patches, or the whole items that servers once wrote.

    A row that is none is left out, with a log entry.
    """
    for values in _by_row(rows):
        try:
            yield _item_patch(at_ms, values, sent_fields(rows.table, values))
        except DataError as error:
            _log.error("item_row_skipped", error=str(error))


def _item_patch(at_ms: int, values: Mapping[str, object], sent: Sequence[str]) -> ItemPatch:
    fields: dict[str, FieldValue | None] = {
        name: values.get(name)  # type: ignore[misc]
        for name in sent
        if name in FIELDS
    }
    attributes: dict[str, str | float] = {
        name.removeprefix(ATTRIBUTE_PREFIX): values[name]  # type: ignore[misc]
        for name in sent
        if name.startswith(ATTRIBUTE_PREFIX) and values.get(name) is not None
    }
    whole = ATTRIBUTES in sent
    if whole or attributes:
        fields["attributes"] = attributes
    return ItemPatch(item_id=str(values["item_id"]), fields=fields, whole_attributes=whole, at_ms=at_ms)


def _by_row(rows: Rows) -> list[dict[str, object]]:
    return [{**rows.same, **{name: v[i] for name, v in rows.each.items()}} for i in range(rows.num_rows)]


def _context(request: RankRequest) -> dict[str, Value]:
    context: dict[str, Value] = {f"{CONTEXT_PREFIX}{name}": value for name, value in request.context.items()}
    if request.surface:
        context[f"{CONTEXT_PREFIX}surface"] = request.surface
    return context | {
        f"{CONTEXT_PREFIX}experiment_{name}": variant for name, variant in request.experiments.items()
    }


def _request_row(request: RankRequest, answer: RankedList, context: Mapping[str, Value]) -> dict[str, Value]:
    row: dict[str, Value] = {
        "request_id": answer.request_id,
        "list_id": answer.list_id,
        "user_id": request.user_id,
        "session_id": request.session_id,
        "surface": request.surface,
        "requested_at": answer.at_ms,
        "filters": _filters(request),
        "page_size": request.page_size,
        "policy": answer.policy,
        "policy_parameters": _json({**answer.policy_parameters, **_list_parameters(request, answer)}),
        "bundle_version": answer.bundle_version,
        "degradation": list(answer.degradation),
        **context,
    }
    if answer.candidates is not None:
        row["candidates"] = answer.candidates.item_ids
        row["candidate_sources"] = answer.candidates.sources
    return row


def _impressions(request: RankRequest, answer: RankedList, context: Mapping[str, Value]) -> Rows:
    items = answer.items
    return Rows(
        table="impressions",
        same={
            "request_id": answer.request_id,
            "user_id": request.user_id,
            "shown_at": answer.at_ms,
            "explored": answer.explored,
            "sampled": False,
            "sampling_rate": 1.0,
            **context,
        },
        each={
            "impression_id": [impression_id(answer.request_id, position) for position in items.positions],
            "item_id": items.item_ids,
            "position": list(items.positions),
            "propensity": items.propensities,
            "propensity_kind": items.propensity_kinds,
        },
    )


def impression_id(request_id: str, position: int) -> str:
    """Return the id of an impression."""
    return f"{request_id}:{position}"


def _list_parameters(request: RankRequest, answer: RankedList) -> dict[str, object]:
    """Return what else determined this list: call, seed, weights, pins."""
    call = "rank" if request.item_ids is not None else "similar" if request.seed_item_id else "recommend"
    chosen: dict[str, object] = {"call": call, "seed": answer.seed, "explored": answer.explored}
    if request.head_weights:
        chosen["head_weights"] = dict(request.head_weights)
    if request.seed_item_id:
        chosen["seed_item_id"] = request.seed_item_id
    if request.pins:
        chosen["pins"] = {str(pin.position): pin.item_id for pin in request.pins}
    return chosen


def _filters(request: RankRequest) -> str | None:
    wanted = request.filter
    filters: dict[str, object] = {
        "categories": sorted(wanted.categories),
        "min_price": wanted.min_price,
        "max_price": wanted.max_price,
        "allow": _abridged(wanted.allow_item_ids),
        "deny": _abridged(wanted.deny_item_ids),
        "exclude": _abridged(request.exclude_item_ids),
        "include_unavailable": wanted.include_unavailable,
    }
    given = {name: value for name, value in filters.items() if value not in ([], None, False)}
    return _json(given) if given else None


def _abridged(item_ids: frozenset[str]) -> list[str]:
    """Return the ids, cut after _MAX_LISTED with a note of their number, to keep log rows short."""
    listed = sorted(item_ids)
    return [*listed[:_MAX_LISTED], f"... {len(listed)} in all"] if len(listed) > _MAX_LISTED else listed


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
