"""Files -> `convert` -> a first night with the config that it wrote -> what the night says."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.sources.to_log import convert_own
from recsys.config import load_config
from recsys.log import InteractionLog
from recsys.registry import Registry
from recsys.user_key import PUBLIC, write_user_key
from training.night.night import Night
from training.night.run import run_night


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstNight:
    """What a newcomer gets."""

    name: str
    config: str
    verdict: str
    checks: dict[str, str]
    beside: dict[str, dict[str, float]]
    """Figures of the model and of simple systems."""
    warnings: tuple[str, ...]
    """Lines that the night printed about its data."""
    convert_s: float
    """Processor time."""
    night_s: float

    @property
    def row(self) -> dict[str, Any]:
        """Give what a table shows of it: the settings that followed from the log, and the figures."""
        kept = ("period", "window", "parent", "history_length", "batch_size", "repeat ", "min_rows")
        settings = [
            line.split(" #")[0] for line in self.config.splitlines() if line.startswith(kept) and "=" in line
        ]
        return {
            "name": self.name,
            "settings": settings,
            "verdict": self.verdict,
            "beside": self.beside,
            "not promoted": {name: said for name, said in self.checks.items() if said},
            "warnings": list(self.warnings),
            "seconds": [round(self.convert_s, 1), round(self.night_s, 1)],
        }


def first_night(name: str, mapping: Path, folder: Path, *, post_check: bool = True) -> FirstNight:
    """Convert the files beside a mapping and run a night.

    Args: folder: takes the log and the runs; post_check: a server of its own loads the version, as the
    default is.
    """
    start = time.process_time()
    made = convert_own("csv", mapping.parent, folder / "log", mapping, name="csv", force=False)
    converted = time.process_time()
    log = InteractionLog(folder / "log")
    runs = folder / "runs"
    write_user_key(runs, PUBLIC)
    config = load_config(made.config)
    if not post_check:
        publish = config.publish.model_copy(update={"check": False})
        config = config.model_copy(update={"publish": publish})
    result = run_night(Night(config=config, log=log, runs=runs, date=made.night))
    record = Registry(runs).require_record(result.evaluated)
    kept = {c.name: c.detail if str(c.outcome) != "PROMOTE" else "" for c in result.decision.checks}
    return FirstNight(
        name=name,
        config=made.config.read_text(encoding="utf-8"),
        verdict=str(result.verdict),
        checks=kept,
        beside=record.beside,
        warnings=tuple(result.validation.lines),
        convert_s=converted - start,
        night_s=time.process_time() - converted,
    )
