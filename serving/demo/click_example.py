"""An example for people: one user's list before a click and a minute after it."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.client_values import Answer

TOP = 3
"""Number of first positions that are printed."""


@dataclass(slots=True, kw_only=True)
class ClickExample:
    """One user's lists, without exploration, before a click and a minute after it."""

    user_id: str
    clicked: str
    before: Answer
    after: Answer | None = None

    @property
    def num_explained(self) -> int:
        """Count the items whose reason names the clicked item."""
        items = self.after.items if self.after else ()
        return sum(any(self.clicked in reason for reason in item.reasons) for item in items)

    @property
    def num_changed(self) -> int:
        """Count the positions with another item than before."""
        return self._changed(len(self.before.items))

    @property
    def num_changed_at_top(self) -> int:
        """Count them among the first positions."""
        return self._changed(TOP)

    def _changed(self, positions: int) -> int:
        before = [item.item_id for item in self.before.items[:positions]]
        after = [item.item_id for item in self.after.items[:positions]] if self.after else before
        return sum(a != b for a, b in zip(before, after, strict=False))


def best_example(examples: Sequence[ClickExample]) -> ClickExample | None:
    """Choose an example with reasons that name the click and many changed positions; None without any."""
    complete = [example for example in examples if example.after is not None]
    return max(complete, key=_interest, default=None)


def _interest(example: ClickExample) -> tuple[bool, int, int, int]:
    return example.num_explained > 0, example.num_changed_at_top, example.num_explained, example.num_changed
