"""Slips in a mapping's kinds: a word near a usual one is a kind of its own, a value of no row is none."""

from collections import Counter
from typing import Final

import polars as pl

from features.profile.model import Finding
from features.sources.mapped.mapping import IGNORE, Feedback
from features.sources.mapped.near import near
from features.sources.mapped.staging import Staged

_USUAL: Final = (
    *("view", "click", "like", "cart", "order", "purchase", "rating", "refund", "share", "comment", "follow"),
    *("save", "play", "download", "subscribe", "return", "search", "favorite", "favourite", "review"),
)


def slips(name: str, section: Feedback, kinds: Counter[str]) -> list[Finding]:
    """Tell of kinds that look like slips. Args: name: the section; kinds: rows of each kind of feedback."""
    found = (_slip(name, kind, rows, section) for kind, rows in sorted(kinds.items()))
    return [finding for finding in found if finding is not None]


def _slip(name: str, kind: str, rows: int, section: Feedback) -> Finding | None:
    if kind in _USUAL:
        return None
    others = [other for other in section.kinds.values() if other not in (kind, IGNORE)]
    own = [value.strip().lower() for value, target in section.kinds.items() if target == kind]
    # 'orders' may well be called 'order'.
    own = [value for value in own if not (value.startswith(kind) or kind.startswith(value))]
    meant = next((word for word in (*_USUAL, *others, *own) if near(kind, word)), None)
    if meant is None:
        return None
    return Finding(
        severity="warning",
        code="near_kinds",
        what=f"{kind!r} is a kind of its own ({rows:,} rows), and written nearly like {meant!r}",
        remedy=f"if it is a slip, write {meant!r} in [{name}]",
    )


def unused(name: str, section: Feedback, staged: Staged) -> dict[str, int]:
    """Give a note of the values of the mapping that no row has: the note, and how many they are."""
    if not section.kinds:
        return {}
    key = "raw_kind" if section.joins_kinds else "kind"
    frames = [frame for frame in map(staged.scan, ("impressions", "feedback")) if frame is not None]
    told = [frame.select(pl.col(key).unique()).collect().to_series() for frame in frames]
    seen = {*pl.concat(told).to_list(), *staged.ignored(name)}
    absent = [
        value
        for value, kind in section.kinds.items()
        if (value if section.joins_kinds else kind) not in seen and f"kind '{value}'" not in seen
    ]
    if not absent:
        return {}
    present = [value for value in section.kinds if value not in absent]
    return {f"[{name}.kinds]: no row is {', '.join(_named(value, present) for value in absent)}": len(absent)}


def _named(value: str, present: list[str]) -> str:
    meant = next((other for other in present if near(value, other)), None)
    return repr(value) if meant is None else f"{value!r} (rows are {meant!r})"
