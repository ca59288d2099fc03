"""What differs between two trees of JSON values, by path."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """List the paths whose values differ, each with both values; what is absent is None."""
    old, new = dict(flat(before)), dict(flat(now))
    keys = sorted({*old, *new})
    return [(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """List the leaves, each with its path; a list of values is one leaf."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        for number, inner in enumerate(value):
            yield from flat(inner, f"{path}[{number}]")
    else:
        # What was read from a file is JSON, what is compared with it may not be yet.
        yield path, json.loads(json.dumps(value, default=str))


def short(value: Any, letters: int) -> str:
    """Say a value in so many letters."""
    text = "absent" if value is None else str(value)
    return text if len(text) <= letters else f"{text[:letters]}…"
