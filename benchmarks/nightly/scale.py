"""A first night on logs of several sizes, stage by stage: processor seconds, and the memory at its peak.

Each stage is run by a process of its own, as `recsys nightly --stop-after STAGE` runs it once all before is
done. So a stage's memory is its own, and what starting and finding the rest costs stands apart, as `start`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.commit import CHECKOUT
from benchmarks.speed.command_cost import Cost, command_cost
from benchmarks.speed.features.large_log import LogDials, write_log
from benchmarks.speed.worktree import worktree
from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.records import Verdict

STAGES: Final = ("features", "validate", "train", "bundle", "evaluate", "publish")
"""Each with what stands between it and the one before."""
START: Final = "start"
FEWEST_ROWS: Final = 10_000
_NOTHING: Final = "check_files"
_EXIT_CODES: Final = frozenset(verdict.exit_code for verdict in Verdict)
_SHOP: Final = CHECKOUT / "recsys" / "shop.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What is measured."""

    rows: tuple[int, ...]
    """Impressions of each log."""
    days: int
    learned_days: int
    """Of the last ones, so many are learned: `[training] max_days`."""
    stages: tuple[str, ...] = STAGES
    seed: int = 0


def parse_rows(text: str) -> tuple[int, ...]:
    """Read sizes of logs: `250000`, `500k` or `20M`, with commas between.

    Raises: ConfigError for anything else, and for less than a page a day.
    """
    found = []
    for word in text.split(","):
        size = re.fullmatch(r"(\d+)([kM]?)", word.strip())
        rows = int(size[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[size[2]] if size else 0
        if rows < FEWEST_ROWS:
            raise ConfigError(
                f"--rows {word!r}: write {FEWEST_ROWS} or more, as a number such as 500k or 20M"
            )
        found.append(rows)
    return tuple(found)


def measure_scale(asked: Scale, before: str | None = None) -> dict[str, Any]:
    """Run a first night on each log. Args: before: run an earlier commit, too, in turn stage by stage.

    Raises: ConfigError for a commit that git does not know; DataError with the last words of a failed night.
    """
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    with ExitStack() as stack:
        trees = {"stages": CHECKOUT}
        earlier = stack.enter_context(worktree(before))
        if earlier is not None:
            trees["before"] = earlier
        for rows in asked.rows:
            with TemporaryDirectory(prefix="recsys-scale-") as folder:
                for name, stage, cost in _night(Path(folder), rows, asked, trees):
                    found.setdefault(name, {}).setdefault(str(rows), {})[stage] = asdict(cost)
    return {"days": asked.days, "learned_days": asked.learned_days, "commit_before": before, **found}


def _night(
    folder: Path, rows: int, asked: Scale, trees: Mapping[str, Path]
) -> Iterator[tuple[str, str, Cost]]:
    """Write a log and run its night by each code: which one, stage, cost."""
    log = InteractionLog(folder / "log")
    dials = LogDials(rows=rows, days=asked.days, seed=asked.seed)
    for _ in write_log(dials, log):
        pass
    config = folder / "config.toml"
    learned = f"\n[training]\nmax_days = {asked.learned_days}\n"
    config.write_text(_SHOP.read_text(encoding="utf-8") + learned, encoding="utf-8")
    for stage in (START, *asked.stages):
        last = _NOTHING if stage == START else stage
        for name, tree in trees.items():
            words = ["nightly", "--config", str(config), "--log", str(log.root), "--date", str(dials.last)]
            words_of = [*words, "--runs", str(folder / name), "--stop-after", last]
            yield name, stage, command_cost(words_of, tree, _EXIT_CODES)
