"""Tasks: one `[[task]]` entry each; labels, heads, losses, metrics and report rows all loop over them."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from recsys.errors import ConfigError

HeadKind = Literal["binary", "regression"]
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# A window this short leaves at most the day's last two hours unlabelled: the day itself can be judged.
SAME_DAY_WINDOW_S = 2 * 3600


def parse_duration_s(value: object) -> object:
    """Read "90s", "30m", "2h" or "7d" as seconds; pass anything else on for pydantic to refuse."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)([smhd])", value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not a duration; write a number and one of s, m, h, d, like '2h'")
        return int(match[1]) * _UNITS_S[match[2]]
    return value


DurationS = Annotated[
    int, BeforeValidator(parse_duration_s), PlainSerializer(lambda s: f"{s}s", return_type=str), Field(ge=0)
]


class TaskSpec(BaseModel):
    """Describe one head: which feedback is its label, for how long, and on which impressions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    feedback: str = Field(min_length=1)
    """The feedback kind that makes the label."""
    reversal: str | None = None
    """A feedback kind that takes the label back (refund, un-like) when received in time."""
    head: HeadKind
    window: DurationS
    """Attribution window in seconds: feedback later than shown_at + window is not credited."""
    space: Literal["impressions", "observed"] = "impressions"
    """`impressions`: no feedback means 0. `observed`: no feedback means not known (ratings)."""
    parent: str | None = None
    """The binary task whose label this one implies; the child's prediction is an entire-space product."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of the task's loss; 0 keeps the head in reports without training the trunk on it."""
    low: float = 1.0
    high: float = 5.0
    """Range of a regression value, in the feedback's own unit (stars)."""
    fusion_weight: float = 1.0
    """Weight of this task's prediction in the additive score (serving)."""

    @property
    def is_binary(self) -> bool:
        """Tell whether the prediction is a probability."""
        return self.head == "binary"

    @property
    def label(self) -> str:
        """Name the label column."""
        return f"label_{self.name}"

    def lag_periods(self, period_s: int) -> int:
        """Count whole periods between an impression's period and the first night that can judge it."""
        return 0 if self.window <= SAME_DAY_WINDOW_S else -(-self.window // period_s)


def check_tasks(tasks: tuple[TaskSpec, ...]) -> None:
    """Refuse duplicate names, unknown parents, and parents that are not binary or come later.

    Raises: ConfigError.
    """
    seen: dict[str, TaskSpec] = {}
    for task in tasks:
        if task.name in seen:
            raise ConfigError(f"[[task]] {task.name!r} is defined twice; give each task its own name")
        if task.low >= task.high:
            raise ConfigError(f"[[task]] {task.name!r}: low={task.low} is not below high={task.high}")
        if task.parent is not None:
            parent = seen.get(task.parent)
            if parent is None:
                raise ConfigError(
                    f"[[task]] {task.name!r}: parent {task.parent!r} is not a task defined above it; "
                    f"known so far: {', '.join(seen) or 'none'}"
                )
            if not (parent.is_binary and task.is_binary and parent.space == task.space == "impressions"):
                raise ConfigError(
                    f"[[task]] {task.name!r}: a child and its parent {parent.name!r} must both be binary "
                    "tasks over all impressions"
                )
        seen[task.name] = task
    if not tasks:
        raise ConfigError("the config has no [[task]]; a recommender needs at least one head")
