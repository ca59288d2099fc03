"""Trunks by name: one shared input x [B, I] -> one hidden vector h [B, H] per task."""

from collections.abc import Sequence

from recsys.errors import ConfigError
from recsys.model.trunks.cross_stitch import CrossStitch
from recsys.model.trunks.mmoe import MMoE
from recsys.model.trunks.ple import PLE
from recsys.model.trunks.shared_bottom import SharedBottom
from recsys.model.trunks.single_task import SingleTask
from recsys.model.trunks.trunk import Trunk
from recsys.shapes import TrunkShape

TRUNKS: dict[str, type[Trunk]] = {
    "cross_stitch": CrossStitch,
    "mmoe": MMoE,
    "ple": PLE,
    "shared_bottom": SharedBottom,
    "single_task": SingleTask,
}


def build_trunk(shape: TrunkShape, num_in: int, tasks: Sequence[str], dropout: float) -> Trunk:
    """Build a trunk by name.

    Raises: ConfigError listing the known names.
    """
    if shape.name not in TRUNKS:
        raise ConfigError(f"[model.trunk] name = {shape.name!r} is unknown; known: {', '.join(TRUNKS)}")
    return TRUNKS[shape.name](num_in, tasks, shape, dropout)
