"""Instants that callers send -> UTC milliseconds, within the years that a log may hold."""

from recsys.schema import EARLIEST_MS, LATEST_MS
from serving.request import FieldError

_NANOS = 1_000_000_000
_FINER = (("milliseconds", 1_000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000))
"""What a client may have put into `seconds`, and how many of it are one."""


def instant_ms(field: str, seconds: int, nanos: int) -> int:
    """Convert a protobuf Timestamp's parts; its own conversion fails outside the years 1 to 9999.

    Raises: FieldError, which says what unit the seconds look like.
    """
    if not 0 <= nanos < _NANOS:
        raise FieldError(f"{field}.nanos", f"{nanos} is out of range; send 0 to {_NANOS - 1}")
    at_ms = 1_000 * seconds + nanos // 1_000_000
    for unit, parts in _FINER:
        if not _is_plausible(at_ms) and _is_plausible(1_000 * seconds // parts):
            raise FieldError(
                f"{field}.seconds", f"{seconds} looks like {unit}; send whole seconds, and the rest as nanos"
            )
    check_instant(field, at_ms)
    return at_ms


def check_instant(field: str, at_ms: int) -> None:
    """Check an instant against the floor and ceiling of `recsys convert`.

    Raises: FieldError.
    """
    if not _is_plausible(at_ms):
        raise FieldError(
            field,
            f"{at_ms} ms is no time of 1990 to 2099; send seconds since 1970, or leave it out without any",
        )


def _is_plausible(at_ms: int) -> bool:
    return EARLIEST_MS <= at_ms < LATEST_MS
