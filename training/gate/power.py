"""How often an equal model would go live, and the smallest loss that a night finds, by number of users.

Standard errors of the night's own comparisons say both; one of n users has sqrt(users / n) times as large
ones. Heads are taken as independent, which states too little where they move together.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from recsys.records import Check, PowerAt
from training.gate.non_inferiority import EQUAL_PASSES, HeadComparison, normal_cdf, normal_quantile
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
    scaled = [replace(c, error_scale=scale) for c in comparisons]
    someone = any(c.decides for c in scaled)
    passes = [_equal_passes(c, len(scaled), someone_decides=someone) for c in scaled]
    passes += [1.0 - false_alarm(check, scale, comparisons[0].config) for check in served]
    return PowerAt(
        users=users,
        stated_rate=math.prod(passes),
        deciding=tuple(c.name for c in scaled if c.decides),
        detectable={c.name: _detectable(c, len(scaled)) for c in scaled if c.adds > 0},
    )


def _equal_passes(head: HeadComparison, num_heads: int, *, someone_decides: bool) -> float:
    """Give how often a comparison lets an equal model pass."""
    if head.decides or not (someone_decides or head.config.underpowered == "promote"):
        return head.equal_passes
    if not head.standard_error:
        return 1.0
    return 1.0 - normal_cdf(-head.veto_at(num_heads) / head.standard_error)


def _detectable(head: HeadComparison, num_heads: int) -> float:
    """Give the loss that is held in nine nights of ten, as a share of what the champion adds."""
    error = head.standard_error
    if head.decides:
        least = head.margin - (normal_quantile(1 - head.config.alpha) - normal_quantile(EQUAL_PASSES)) * error
    else:
        least = head.veto_at(num_heads) + normal_quantile(EQUAL_PASSES) * error
    return least / head.adds
