"""Keys of the config that had another name before: whoever writes the old one is told the new one."""

from collections.abc import Mapping
from typing import Final

RENAMED: Final[Mapping[str, str]] = {
    "gate.min_auc": "gate.min_list_auc",
    "model.members": "model.ensemble_size",
    "training.finalise": "training.refit",
}
"""The old key, with its section, and the new one. The old one is refused: nothing reads it."""
