"""What a night was made with: code, libraries, seed, the days it read, and how long its stages took."""

import platform
import socket
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from features.days import Days
from recsys.commit import commit
from recsys.records import DayData, Lineage
from training.night.plan import NightPlan

LIBRARIES = ("torch", "torchrec", "polars", "numpy", "faiss-cpu", "faiss-gpu", "safetensors", "scikit-learn")
PACKAGE = "recsys"


def lineage_of(days: Days, plan: NightPlan, seed: int, seconds: Mapping[str, float]) -> Lineage:
    """Describe a night. Args: seconds: by stage, of this run; what was found done took next to none."""
    return Lineage(
        code=" ".join(filter(None, (_version(PACKAGE), commit()))) or "unknown",
        python=platform.python_version(),
        libraries={name: found for name in LIBRARIES if (found := _version(name)) is not None},
        host=socket.gethostname(),
        seed=seed,
        days={
            str(snapshot.day): DayData(snapshot=snapshot.path.name, rows=snapshot.manifest["rows"])
            for snapshot in days[plan.first :]
        },
        seconds={stage: round(took, 2) for stage, took in seconds.items()},
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
