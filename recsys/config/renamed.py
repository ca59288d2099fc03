"""Keys of the config that had another name before: whoever writes the old one is told the new one."""

from collections.abc import Mapping
from typing import Any, Final

RENAMED: Final[Mapping[str, str]] = {
    "gate.min_auc": "gate.min_list_auc",
    "model.members": "model.ensemble_size",
    "training.finalise": "training.refit",
    "policy.exclude_seen_kinds": "policy.repeat_kinds",
    "retrieval.together_candidates": "item_item.candidates",
}
"""The old key, with its section, and the new one. The old one is refused: nothing reads it."""


def with_new_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Give the config of an older bundle, as its manifest has it, under the names of today."""
    found = {name: dict(part) if isinstance(part, Mapping) else part for name, part in data.items()}
    policy, retrieval = found.get("policy", {}), found.get("retrieval", {})
    if "exclude_seen_kinds" in policy:
        kinds = policy.pop("exclude_seen_kinds")
        policy |= {"repeat": "exclude" if kinds else "allow", "repeat_kinds": kinds}
    if "together_candidates" in retrieval:
        found.setdefault("item_item", {})["candidates"] = retrieval.pop("together_candidates")
    return found
