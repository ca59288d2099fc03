"""How many patches of items a server keeps: what a version that may go live lacks, and no more.

A price feed changes the same items all day. Patches that no version lacks are dropped, older ones between the
ends of two versions' data become one an item. A version that needs more than that, because it is older than
the start foresaw, has them read from the journal again.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import structlog

from recsys.errors import RegistryError
from serving.catalogue.overlay import ItemOverlay
from serving.restore import item_patches_since

TIDY_EVERY_S = 3_600.0
_DAY_MS = 86_400_000
_log = structlog.get_logger(__name__)


class DataEnds(Protocol):
    """The registry, as far as the data of its versions goes."""

    def oldest_data_end_ms(self, count: int) -> int | None:
        """Return the earliest instant at which the data of a kept version ends; None without a version."""


class PatchRetention:
    """Keeps an overlay's patches small, and complete for every version that is loaded.

    Args: folder: the journal's; keep: nights whose versions may go live; period_s: of the nights;
    loaded_ms: when the data of each version ends that answers now.
    """

    def __init__(
        self,
        folder: Path,
        overlay: ItemOverlay,
        registry: DataEnds,
        *,
        keep: int,
        period_s: int,
        now_ms: Callable[[], int],
        loaded_ms: Callable[[], Iterable[int]],
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._overlay = overlay
        self._registry = registry
        self._keep = keep
        self._period_s = period_s
        self._now_ms = now_ms
        self._loaded_ms = loaded_ms
        self._elapsed_s = elapsed_s
        self._tidied_s = elapsed_s()
        oldest_ms = self._oldest_ms()
        self.since_ms = 0 if oldest_ms is None else min(self.recent_ms(), oldest_ms)
        """All patches from this instant on are kept, or were folded."""
        self._folded_before_ms = 0
        self._ends: frozenset[int] = frozenset()
        """Among the folded patches, the instants that none was folded across."""

    def recent_ms(self) -> int:
        """Return the instant of two periods and a day ago: the data of a new version ends after it."""
        return self._now_ms() - 2000 * self._period_s - _DAY_MS

    def tidy_if_due(self) -> None:
        """Tidy once an hour."""
        if self._elapsed_s() - self._tidied_s >= TIDY_EVERY_S:
            self.tidy()

    def tidy(self) -> None:
        """Drop the patches that a start would not read now, and fold older ones; answers stay as they are."""
        self._tidied_s = self._elapsed_s()
        try:
            oldest_ms = self._registry.oldest_data_end_ms(self._keep)
        except (RegistryError, OSError):
            return  # the registry's reader says so
        recent_ms = self.recent_ms()
        ends = sorted({*self._loaded_ms(), *(() if oldest_ms is None else (oldest_ms,))})
        self._overlay.compact(ends, recent_ms)
        self.since_ms = max(self.since_ms, min(recent_ms, ends[0]))
        whole = {end for end in ends if end in self._ends or end >= self._folded_before_ms}
        self._folded_before_ms, self._ends = recent_ms, frozenset(whole)

    def require(self, as_of_ms: int) -> None:
        """Read older patches for a version whose data ends at an instant that tidying did not foresee."""
        folded = as_of_ms < self._folded_before_ms and as_of_ms not in self._ends
        if as_of_ms < self.since_ms or folded:
            _log.info("older_patches_read", since_ms=as_of_ms)
            self._overlay.renew(lambda: item_patches_since(self._folder, as_of_ms))
            self.since_ms, self._folded_before_ms = as_of_ms, 0

    def _oldest_ms(self) -> int | None:
        try:
            return self._registry.oldest_data_end_ms(self._keep)
        except (RegistryError, OSError) as error:
            _log.error("oldest_version_unknown", error=str(error))
            return None
