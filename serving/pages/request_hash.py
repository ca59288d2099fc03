"""Hashes of the fields of a request that must stay the same on all pages of its list."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache

from serving.request import RankRequest

HASH_BYTES = 4


def request_hashes(request: RankRequest) -> dict[str, bytes]:
    """Hash each field that determines a list, by its name in the API.

    The page size may change, and so may what does not change the list: bundle_version, explain, do_not_log.
    """
    return {name: _hash(value) for name, value in _fields(request).items()}


HASHED_FIELDS = (
    "user_id",
    "session_id",
    "surface",
    "context",
    "item_ids",
    "seed_item_id",
    "filter",
    "exclude_item_ids",
    "head_weights",
    "experiment_assignments",
    "pins",
    "debug.seed",
)


def _fields(request: RankRequest) -> dict[str, object]:
    wanted = request.filter
    values = (
        request.user_id,
        request.session_id,
        request.surface,
        sorted(request.context.items()),
        request.item_ids,
        request.seed_item_id,
        [
            sorted(wanted.categories),
            wanted.min_price,
            wanted.max_price,
            sorted(wanted.allow_item_ids),
            sorted(wanted.deny_item_ids),
            wanted.include_unavailable,
        ],
        sorted(request.exclude_item_ids),
        sorted(request.head_weights.items()),
        sorted(request.experiments.items()),
        sorted((pin.position, pin.item_id) for pin in request.pins),
        request.seed,
    )
    return dict(zip(HASHED_FIELDS, values, strict=True))


def other_method(before: Sequence[bytes], request: RankRequest) -> str | None:
    """Name the method of the request that was hashed before; None when it is this request's.

    Rank has a list of candidates, Recommend has none.
    """
    was_recommend = before[HASHED_FIELDS.index("item_ids")] == _hash(None)
    if was_recommend == (request.item_ids is None):
        return None
    return "Recommend" if was_recommend else "Rank"


def changed_fields(before: Iterable[bytes], request: RankRequest) -> list[str]:
    """Name the fields of a request that differ from those that were hashed before."""
    now = request_hashes(request)
    return [name for (name, value), earlier in zip(now.items(), before, strict=True) if value != earlier]


def _hash(value: object) -> bytes:
    # Most fields are empty, and to write JSON takes longer than to look that up.
    return _hash_of_text("null" if value is None else "[]" if value == [] else json.dumps(value))


@lru_cache(64)  # most requests leave most fields empty
def _hash_of_text(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).digest()
