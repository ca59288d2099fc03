"""One of the two bundles of an A/B report, with the days it is scored on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from features.days import Days
from recsys.log import InteractionLog
from recsys.manifest import Manifest
from recsys.records import NightRecord
from recsys.tasks import TaskSpec
from training.evaluation.leaks import LeakCheck
from training.predict import BundlePredictor
from training.report.ab_report import System


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One bundle and the days as its own config builds and labels them."""

    predictor: BundlePredictor
    days: Days
    record: NightRecord | None = None
    """Of the night that made it, where there is one."""
    log: InteractionLog | None = None
    """The log of the days, for off-policy values; None: there are none."""

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """Give the bundle's tasks."""
        return self.predictor.bundle.config.tasks

    def system(self, days: Sequence[date]) -> System:
        """Say what the bundle is and what it has seen of these days."""
        manifest: Manifest = self.predictor.bundle.manifest
        config = self.predictor.bundle.config
        return System(
            version=manifest.version,
            night=manifest.date,
            parent=manifest.parent,
            refitted=manifest.refitted,
            leaks=LeakCheck.of(manifest, config, {task.name: days for task in self.tasks}, self.record),
        )
