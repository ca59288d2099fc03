"""Running counts per user and per item: their number sets the memory, not the number of rows."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from features.profile.model import QUANTILES, Distribution


@dataclass(slots=True)
class EntityTally:
    """Events per entity, and which entities earlier days had."""

    key: str
    _known: pl.DataFrame | None = None
    _fresh: list[pl.DataFrame] = field(default_factory=list)

    def add(self, counts: pl.DataFrame) -> tuple[int, int]:
        """Add one day's counts (key, events); return how many entities the day has, and how many are new."""
        known = self._counts().select(self.key)
        new = counts.join(known, on=self.key, how="anti").height if known.height else counts.height
        self._fresh.append(counts)
        return counts.height, new

    def _counts(self) -> pl.DataFrame:
        """Merge what was added into one row per entity."""
        if self._fresh:
            known = [] if self._known is None else [self._known]
            stacked = pl.concat([*known, *self._fresh], how="vertical_relaxed")
            self._known = stacked.group_by(self.key).agg(pl.col("events").sum())
            self._fresh = []
        if self._known is None:
            return pl.DataFrame(schema={self.key: pl.String, "events": pl.UInt32})
        return self._known

    @property
    def entities(self) -> pl.Series:
        """List all entities."""
        return self._counts()[self.key]

    @property
    def rows_of_ids(self) -> pl.DataFrame:
        """Give each entity once: id, rows."""
        return self._counts().select(id=self.key, rows="events")

    def distribution(self) -> Distribution:
        """Summarise events per entity."""
        ordered = self._counts().sort("events", self.key, descending=[True, False])
        events = ordered["events"].to_numpy().astype(float)
        if not events.size:
            return Distribution(
                entities=0, quantiles={}, mean=0.0, once=0.0, top="", top_share=0.0, top_percent_share=0.0
            )
        total = float(events.sum())
        hundredth = max(1, round(events.size / 100))
        return Distribution(
            entities=events.size,
            quantiles={
                f"{100 * q:g}%": float(np.quantile(events, q, method="inverted_cdf")) for q in QUANTILES
            },
            mean=total / events.size,
            once=float((events == 1).mean()),
            top=str(ordered[self.key][0]),
            top_share=float(events[0]) / total,
            top_percent_share=float(events[:hundredth].sum()) / total,
        )
