"""Every row of a file is accounted for: read = kept + repeats + quarantined + ignored."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Tally:
    """What became of the rows of one table of the source: a section of a mapping, or a file of a set."""

    read: int = 0
    """Rows of the files."""
    kept: int = 0
    """Rows that are in the log; one row may have made several there."""
    repeats: Counter[str] = field(default_factory=Counter)
    """Rows left out because their event, or their key, was there already; by reason."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Rows that break a rule; by reason."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Rows that the mapping leaves out; by reason."""

    @property
    def left_out(self) -> int:
        """Count the rows that are not in the log."""
        return self.repeats.total() + self.quarantined.total() + self.ignored.total()

    @property
    def adds_up(self) -> bool:
        """Tell whether each row read has one end."""
        return self.read == self.kept + self.left_out

    def lines(self) -> Iterator[tuple[str, str, int]]:
        """Give what became of the rows: what, reason (empty for those kept), rows."""
        yield "kept", "", self.kept
        for name, reasons in self._by_reason().items():
            yield from ((name, reason, rows) for reason, rows in reasons.items())

    def to_json(self) -> dict[str, Any]:
        """Give the counts as JSON values."""
        return {"read": self.read, "kept": self.kept, **self._by_reason()}

    def _by_reason(self) -> dict[str, dict[str, int]]:
        counts = {"repeats": self.repeats, "quarantined": self.quarantined, "ignored": self.ignored}
        return {name: {r: n for r, n in sorted(c.items()) if n} for name, c in counts.items()}
