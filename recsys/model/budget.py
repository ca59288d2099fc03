"""Parameter budgets: the size of a trunk, and the widths that give another trunk the same size.

Comparing trunks at equal widths compares their sizes; at equal size it compares their forms.
"""

from collections.abc import Sequence

import torch

from recsys.config import TrunkConfig
from recsys.errors import ConfigError
from recsys.model.trunks import build_trunk

TOLERANCE = 0.05


def num_parameters(shape: TrunkConfig, num_in: int, tasks: Sequence[str]) -> int:
    """Count a trunk's parameters without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_trunk(shape, num_in, tasks, 0.0).parameters())


def match_budget(
    shape: TrunkConfig, num_in: int, tasks: Sequence[str], wanted: int, tolerance: float = TOLERANCE
) -> TrunkConfig:
    """Scale a trunk's hidden widths by one factor until it has the given number of parameters.

    Args: shape: name, experts and the proportions of `hidden`; wanted: parameters, > 0.
    Raises: ConfigError when no such widths come within the tolerance (a share of `wanted`).
    """

    def scaled(factor: float) -> TrunkConfig:
        return shape.model_copy(update={"hidden": tuple(max(1, round(w * factor)) for w in shape.hidden)})

    def miss(candidate: TrunkConfig) -> int:
        return abs(num_parameters(candidate, num_in, tasks) - wanted)

    low, high = 0.0, 1.0
    while num_parameters(scaled(high), num_in, tasks) < wanted:
        low, high = high, 2 * high
    while scaled(low).hidden != scaled(high).hidden and high - low > 1e-4 * high:
        middle = (low + high) / 2
        if num_parameters(scaled(middle), num_in, tasks) < wanted:
            low = middle
        else:
            high = middle
    best = min((scaled(low), scaled(high)), key=miss)
    for layer, width in enumerate(best.hidden):  # rounding is coarse where widths are small
        near = [max(1, width + step) for step in (-2, -1, 0, 1, 2)]
        hidden = best.hidden
        tried = [best.model_copy(update={"hidden": (*hidden[:layer], w, *hidden[layer + 1 :])}) for w in near]
        best = min([best, *tried], key=miss)
    if miss(best) > tolerance * wanted:
        raise ConfigError(
            f"[model.trunk] {shape.name!r} with {len(shape.hidden)} layers cannot have {wanted} parameters: "
            f"nearest is {num_parameters(best, num_in, tasks)} at hidden = {list(best.hidden)}; "
            "take fewer experts or a larger budget"
        )
    return best
