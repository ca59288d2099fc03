"""Checks of a request's fields: types, ranges and lengths. Error texts name the value and the remedy."""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from recsys.config import ServingConfig
from recsys.fusion import MAX_WEIGHT
from serving.request import FieldError, Pin, RankRequest

MAX_ID_BYTES = 256
MAX_TEXT_BYTES = 1_024
MAX_ENTRIES = 64
MAX_EXCLUDED = 10_000
MAX_CATEGORIES = 1_000
MAX_PINS = 50
MAX_BATCH = 1_000
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits that the config sets."""

    default_page_size: int = 10
    max_page_size: int = 200
    max_candidates: int = 2_000

    @classmethod
    def from_config(cls, config: ServingConfig) -> "Limits":
        """Read them from the [serving] section."""
        return cls(
            default_page_size=config.default_page_size,
            max_page_size=config.max_page_size,
            max_candidates=config.max_candidates,
        )


def check_request(request: RankRequest, limits: Limits) -> None:
    """Check everything that needs no model.

    Raises: FieldError, naming the field.
    """
    check_id("user_id", request.user_id)
    for name, text in (("session_id", request.session_id), ("surface", request.surface)):
        if text is not None:
            check_id(name, text)
    _check_values("context", request.context)
    _check_experiments(request.experiments)
    _check_weights(request.head_weights)
    if request.bundle_version is not None:
        check_id("bundle_version", request.bundle_version)
    _check_pins(request.pins, limits)
    _check_filter(request)
    check_ids("exclude_item_ids", request.exclude_item_ids, MAX_EXCLUDED)
    if request.seed_item_id is not None:
        check_id("seed_item_id", request.seed_item_id)
    if request.item_ids is not None:
        if not request.item_ids:
            raise FieldError("item_ids", "the list is empty; send the candidates, or call Recommend")
        check_ids("item_ids", request.item_ids, limits.max_candidates)


def page_size(asked: int, limits: Limits) -> int:
    """Return the page size to serve; 0 asks for the default.

    Raises: FieldError.
    """
    if not 0 <= asked <= limits.max_page_size:
        raise FieldError(
            "page_size",
            f"{asked} is out of range; send 1 to {limits.max_page_size}, or 0 for {limits.default_page_size}",
        )
    return asked or limits.default_page_size


def check_ids(field: str, item_ids: Collection[str], most: int) -> None:
    """Check a list of ids and its length.

    Raises: FieldError.
    """
    if len(item_ids) > most:
        raise FieldError(field, f"{len(item_ids)} ids are too many; send at most {most}")
    for item_id in item_ids:
        check_id(field, item_id)


def check_id(field: str, value: str) -> None:
    """Check one id.

    Raises: FieldError.
    """
    if not value:
        raise FieldError(field, "it is empty; send an id")
    check_text(field, value, MAX_ID_BYTES)
    if _CONTROL.search(value):
        raise FieldError(field, f"{value[:40]!r} contains a control character; send a printable id")


def check_text(field: str, value: str, most_bytes: int) -> None:
    """Check a text's length.

    Raises: FieldError.
    """
    size = len(value.encode())
    if size > most_bytes:
        raise FieldError(field, f"{value[:40]!r}... has {size} bytes; send at most {most_bytes}")


def check_value(field: str, name: str, value: str | float) -> None:
    """Check one named value of a context or of an item's attributes.

    Raises: FieldError.
    """
    if not _NAME.fullmatch(name):
        raise FieldError(
            field, f"the name {name[:80]!r} is not allowed; use letters, digits, '_', '.' and '-'"
        )
    if isinstance(value, str):
        check_text(f"{field}[{name!r}]", value, MAX_TEXT_BYTES)
    elif not math.isfinite(value):
        raise FieldError(
            f"{field}[{name!r}]", f"{value} is not a finite number; leave it out when it is not known"
        )


def check_count(field: str, count: int, most: int = MAX_ENTRIES) -> None:
    """Check the length of a list or map.

    Raises: FieldError.
    """
    if count > most:
        raise FieldError(field, f"{count} entries are too many; send at most {most}")


def _check_values(field: str, values: Mapping[str, str | float]) -> None:
    check_count(field, len(values))
    for name, value in values.items():
        check_value(field, name, value)


def _check_experiments(experiments: Mapping[str, str]) -> None:
    check_count("experiment_assignments", len(experiments))
    for name, variant in experiments.items():
        check_value("experiment_assignments", name, variant)


def _check_weights(weights: Mapping[str, float]) -> None:
    check_count("head_weights", len(weights))
    for task, weight in weights.items():
        check_text("head_weights", task, MAX_ID_BYTES)
        if not abs(weight) <= MAX_WEIGHT:
            raise FieldError(
                "head_weights",
                f"the weight {weight} of {task!r} is not between -{MAX_WEIGHT:g} and {MAX_WEIGHT:g}; "
                "send a smaller one, and divide the others by the same number",
            )


def _check_pins(pins: Collection[Pin], limits: Limits) -> None:
    check_count("pins", len(pins), MAX_PINS)
    for pin in pins:
        check_id("pins.item_id", pin.item_id)
        if not 1 <= pin.position <= limits.max_page_size:
            raise FieldError(
                "pins.position", f"{pin.position} is out of range; send 1 to {limits.max_page_size}"
            )
    _check_distinct("pins.position", [str(pin.position) for pin in pins])
    _check_distinct("pins.item_id", [pin.item_id for pin in pins])


def _check_distinct(field: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise FieldError(field, f"{value!r} is sent twice; send it once")
        seen.add(value)


def _check_filter(request: RankRequest) -> None:
    wanted = request.filter
    check_ids("filter.categories", wanted.categories, MAX_CATEGORIES)
    check_ids("filter.allow_item_ids", wanted.allow_item_ids, MAX_EXCLUDED)
    check_ids("filter.deny_item_ids", wanted.deny_item_ids, MAX_EXCLUDED)
    low, high = wanted.min_price, wanted.max_price
    for name, price in (("filter.min_price", low), ("filter.max_price", high)):
        if price is not None and price < 0:
            raise FieldError(name, f"{price} is negative; send minor units, 0 or more")
    if low is not None and high is not None and low > high:
        raise FieldError("filter.max_price", f"{high} is below min_price {low}; swap them")
