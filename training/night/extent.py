"""Which stages of a night run, and which are built once more although they are there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recsys.errors import ConfigError
from recsys.stages import Reuse
from training.night.stages import STAGES
from training.night.step import Stage

PUBLISH = "publish"
_VERDICT = "gate"
"""The stage from which on a night has a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What part of a night the command line asks for; names are those of STAGES.

    Raises: ConfigError for an unknown name, or when the last stage comes before the first.
    """

    start_at: str | None = None
    stop_after: str | None = None
    force: tuple[str, ...] = ()
    verify: bool = False
    """Read every file of every stage that is used again."""

    def __post_init__(self) -> None:
        stages_between(self.start_at, self.stop_after)
        for name in self.force:
            _place_of("--force", name)

    @property
    def has_verdict(self) -> bool:
        """Say whether the night has a verdict when it stops."""
        last = self.stop_after or STAGES[-1].name
        return _place_of("--stop-after", last) >= _place_of("", _VERDICT)

    def reuse(self, say: Callable[[str], None]) -> Reuse:
        """Give what it means for finished stages. Args: say: is told of what is built again."""
        first = 0 if self.start_at is None else _place_of("--start-at", self.start_at)
        return Reuse(
            verify=self.verify,
            force=with_takers(self.force),
            ready=frozenset(stage.name for stage in STAGES[:first]),
            say=say,
        )


def stages_between(start_at: str | None, stop_after: str | None) -> list[Stage]:
    """Give the stages from one to another, with those before whose results they take.

    Raises: ConfigError for an unknown name, or when the last comes before the first.
    """
    first = 0 if start_at is None else _place_of("--start-at", start_at)
    last = len(STAGES) - 1 if stop_after is None else _place_of("--stop-after", stop_after)
    if last < first:
        raise ConfigError(f"--stop-after {stop_after} comes before --start-at {start_at}: nothing would run")
    return [stage for i, stage in enumerate(STAGES[: last + 1]) if i >= first or stage.output is not None]


def with_takers(names: Sequence[str]) -> frozenset[str]:
    """Add to some stages all that take what they make."""
    found, outputs = set[str](), set[str]()
    for stage in STAGES:
        if stage.name in names or outputs & {*stage.inputs}:
            found.add(stage.name)
            outputs |= {stage.output} if stage.output is not None else set()
    return frozenset(found)


def _place_of(option: str, name: str) -> int:
    """Give a stage's place in the table.

    Raises: ConfigError listing the stages.
    """
    names = [stage.name for stage in STAGES]
    if name not in names:
        raise ConfigError(f"{option} {name!r} is no stage of a night; they are: {', '.join(names)}")
    return names.index(name)
