"""How often an equal model would go live, and the smallest loss that a night finds, by number of users.

Standard errors of the night's own comparisons say both; one of n users has sqrt(users / n) times as large
ones, and n / users times as many telling lists. Heads are taken as independent, which states too little
where they move together.

An equal model's gain over a comparison's standard error is a standard normal z. Where no head decides:

    passes    z >= quantile(1 - alpha) - margin / error       all of them, or
    better    z >  quantile(1 - alpha / heads)                one by chance, and then
    vetoes    z <  -veto / error                              none of the others
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from recsys.records import Check, PowerAt
from training.gate.non_inferiority import (
    EQUAL_PASSES,
    LEAST_TELLING,
    HeadComparison,
    normal_cdf,
    normal_quantile,
)
from training.gate.served_order import false_alarm

OTHER_USERS = (500, 2_000, 20_000)
"""Users a day for which the power is stated beside the night's own."""


def power_of(
    comparisons: Sequence[HeadComparison], served: Sequence[Check], users: int
) -> tuple[PowerAt, ...]:
    """State the power of the night, then of nights of OTHER_USERS users a day; empty: nothing is compared.

    Args: served: of `check_served_order`; users: of the evaluated day.
    """
    known = [c for c in comparisons if c.known]
    if not known or not users:
        return ()
    return tuple(_at(known, served, number, math.sqrt(users / number)) for number in (users, *OTHER_USERS))


def _at(comparisons: list[HeadComparison], served: Sequence[Check], users: int, scale: float) -> PowerAt:
    scaled = [replace(c, error_scale=scale, telling=_telling(c, scale)) for c in comparisons]
    alarms = [false_alarm(check, scale, comparisons[0].config) for check in served]
    return PowerAt(
        users=users,
        stated_rate=_equal_passes(scaled) * math.prod(1.0 - alarm for alarm in alarms),
        deciding=tuple(c.name for c in scaled if c.decides),
        detectable={c.name: _detectable(c, len(scaled)) for c in scaled if c.adds > 0},
    )


def _telling(head: HeadComparison, scale: float) -> int | None:
    return None if head.telling is None else round(head.telling / scale**2)


def _equal_passes(heads: Sequence[HeadComparison]) -> float:
    """Give how often all comparisons let an equal model pass, as `check_comparisons` does."""
    if any(c.decides for c in heads) or heads[0].config.underpowered == "promote":
        return math.prod(c.equal_passes if c.decides else _unvetoed(c, len(heads)) for c in heads)
    better = [_better_by_chance(c, len(heads)) for c in heads]
    unvetoed = [_unvetoed(c, len(heads)) for c in heads]
    # Who is better by chance has passed, too, and vetoes nothing: the parts below do not overlap.
    none_better = math.prod(max(0.0, c.equal_passes - b) for c, b in zip(heads, better, strict=True))
    some_better = math.prod(unvetoed) - math.prod(u - b for u, b in zip(unvetoed, better, strict=True))
    return none_better + some_better


def _unvetoed(head: HeadComparison, num_heads: int) -> float:
    """Give how often a comparison that need not pass shows no harm of an equal model."""
    if not head.standard_error:
        return 1.0
    return 1.0 - normal_cdf(-head.veto_at(num_heads) / head.standard_error)


def _better_by_chance(head: HeadComparison, num_heads: int) -> float:
    """Give how often an equal model is shown to be better."""
    tells = head.standard_error and (head.telling is None or head.telling >= LEAST_TELLING)
    return head.config.alpha / num_heads if tells else 0.0


def _detectable(head: HeadComparison, num_heads: int) -> float:
    """Give the loss that is held in nine nights of ten, as a share of what the champion adds."""
    error = head.standard_error
    if head.decides:
        least = head.margin - (normal_quantile(1 - head.config.alpha) - normal_quantile(EQUAL_PASSES)) * error
    else:
        least = head.veto_at(num_heads) + normal_quantile(EQUAL_PASSES) * error
    return least / head.adds
