"""Tasks: one `[[task]]` entry each; labels, heads, losses, metrics and report rows all loop over them."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from recsys.config_view import Viewable
from recsys.errors import ConfigError
from recsys.head_kinds import HEAD_KINDS, HeadKind
from recsys.shapes import RETRIEVAL

MAX_LEVELS = 100
MIN_STEPS = 4
"""Aggregates round a value to steps: a range of fewer would tell next to nothing."""
RANGE_OPTIONS = ("low", "high", "step")
LABEL_KEYS = ("name", "feedback", "reversal", "head", "window", "space", "parent", "low", "high")
"""The keys of a task that decide its labels."""
HEAD_KEYS = ("name", "feedback", "head", "space", "parent", "low", "high", "step", "hidden", "transfer_from")
"""The keys of a task that decide what its head predicts, and its shape."""
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# A window this short leaves at most the day's last two hours unlabelled: the day itself can be evaluated.
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


class TaskSpec(Viewable):
    """Describe one head: which feedback is its label, for how long, and on which impressions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    feedback: str = Field(min_length=1)
    """The feedback kind that makes the label."""
    reversal: str | None = None
    """A feedback kind that takes the label back (refund, un-like) when received in time."""
    head: str
    """A name of `recsys.head_kinds.HEAD_KINDS`."""
    window: DurationS
    """Attribution window in seconds: feedback later than shown_at + window is not credited."""
    space: Literal["impressions", "observed"] = "impressions"
    """`impressions`: no feedback means 0, which [low, high] must hold. `observed`: it means not known
    (ratings)."""
    parent: str | None = None
    """The task whose label this one implies; the child's prediction is an entire-space product."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of the task's loss; 0 keeps the head in reports without training the trunk on it."""
    list_weight: float = Field(default=0.0, ge=0)
    """Weight, beside the head's own loss, of the order inside each list: of its pairs of a positive and a
    negative (binary heads). 0: batches are of single rows."""
    low: float = 1.0
    high: float = 5.0
    """Range of the feedback's value, in its own unit (stars, seconds); labels are clipped to it."""
    step: float = Field(default=1.0, gt=0)
    """Aggregates add values up as whole steps of this (regression, default 0.5: 3.7 stars count as 3.5; write
    0.01 for a ratio). Of an ordinal value (default 1) it is also the distance of two levels."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """Layer widths of the task's own head; default: one layer of `[model] head_hidden`. `[]`: none."""
    loss: str | None = None
    """A loss of the head kind, default its first. binary: bce, focal; regression: mse, huber, mae; ordinal:
    likelihood."""
    learning_rate_scale: float = Field(default=1.0, gt=0)
    """The head's parameters learn at this multiple of `[training] learning_rate`."""
    transfer_from: str | None = None
    """An earlier task whose head's hidden vector this head attends over beside its own (AITM)."""
    debias: Literal["ips"] | None = None
    """`ips`: weight the loss by 1 / estimated probability of being observed (space `observed` only)."""
    fusion_weight: float = 1.0
    """Weight of this task's prediction in the score (serving); `[fusion.weights]` wins over it."""

    @model_validator(mode="before")
    @classmethod
    def _default_range(cls, data: Any) -> Any:
        """Give options of the range that are not set the head kind's defaults."""
        kind = HEAD_KINDS.get(str(data.get("head"))) if isinstance(data, dict) else None
        return data if kind is None else {**kind.options, **data}

    @field_validator("head")
    @classmethod
    def _known_head(cls, value: str) -> str:
        if value not in HEAD_KINDS:
            raise ValueError(f"{value!r} is no head kind; known: {', '.join(HEAD_KINDS)}")
        return value

    @property
    def kind(self) -> HeadKind:
        """Give what is known of the head's kind."""
        return HEAD_KINDS[self.head]

    @property
    def loss_name(self) -> str:
        """Name the loss, chosen or the kind's default."""
        return self.loss or next(iter(self.kind.losses))

    @property
    def prediction_range(self) -> tuple[float, float]:
        """Give the ends between which a prediction lies: 0 and 1 for a probability."""
        return (0.0, 1.0) if self.kind.probability else (self.low, self.high)

    @property
    def num_levels(self) -> int:
        """Count the levels low, low + step, …, high of an ordinal value."""
        return round((self.high - self.low) / self.step) + 1

    @property
    def observation(self) -> str:
        """Name the logit of being observed; no task can be called so."""
        return f"{self.name}:observed"

    @property
    def label(self) -> str:
        """Name the label column."""
        return f"label_{self.name}"

    def lag_periods(self, period_s: int) -> int:
        """Count whole periods between an impression's period and the first night that can evaluate it."""
        return 0 if self.window <= SAME_DAY_WINDOW_S else -(-self.window // period_s)


def new_heads(tasks: Sequence[TaskSpec], before: Sequence[TaskSpec]) -> tuple[str, ...]:
    """Name the tasks whose heads cannot go on from those of `before`: there is none, or of another kind."""
    known = {tuple(getattr(task, key) for key in HEAD_KEYS) for task in before}
    return tuple(t.name for t in tasks if tuple(getattr(t, key) for key in HEAD_KEYS) not in known)


def check_tasks(tasks: tuple[TaskSpec, ...]) -> None:
    """Refuse duplicate names, options that do not fit the head kind, and wrong relations between tasks.

    Raises: ConfigError.
    """
    seen: dict[str, TaskSpec] = {}
    for task in tasks:
        if task.name in seen:
            raise ConfigError(f"[[task]] {task.name!r} is defined twice; give each task its own name")
        if task.name == RETRIEVAL:
            raise ConfigError(
                f"[[task]] {task.name!r} is the name of the two towers' own loss ([retrieval]); give the "
                "task another name, its `feedback` may stay"
            )
        _check_options(task)
        _check_parent(task, seen)
        if task.transfer_from is not None:
            _earlier(task, "transfer_from", task.transfer_from, seen)
        seen[task.name] = task
    if not tasks:
        raise ConfigError("the config has no [[task]]; a recommender needs at least one head")


def check_zero_labels(tasks: Sequence[TaskSpec]) -> None:
    """Refuse a value over all impressions whose range does not hold the label of no feedback, 0.

    Raises: ConfigError.
    """
    for task in tasks:
        if task.kind.probability or task.space != "impressions" or task.low <= 0 <= task.high:
            continue
        raise ConfigError(
            f"[[task]] {task.name!r}: with space = 'impressions' no feedback is the label 0, which is not in "
            f"[low, high] = [{task.low:g}, {task.high:g}]; write space = 'observed' when only values that "
            "were given are labels, or a range that holds 0"
        )


def _check_options(task: TaskSpec) -> None:
    """Refuse an empty range, options that the head kind does not read, unknown losses, a debias in vain."""
    for key in RANGE_OPTIONS:
        value = getattr(task, key)
        if key not in task.kind.options and value != TaskSpec.model_fields[key].default:
            readers = " or ".join(repr(name) for name, kind in HEAD_KINDS.items() if key in kind.options)
            raise ConfigError(
                f"[[task]] {task.name!r}: {key} = {value} is not read by {task.head} heads; take it out, or "
                f"choose head = {readers}"
            )
    if task.low >= task.high:
        raise ConfigError(f"[[task]] {task.name!r}: low={task.low} is not below high={task.high}")
    _check_step(task)
    if task.loss_name not in task.kind.losses:
        raise ConfigError(
            f"[[task]] {task.name!r}: loss = {task.loss!r} is no loss of {task.head} heads; "
            f"known: {', '.join(task.kind.losses)}"
        )
    if task.list_weight and not task.kind.probability:
        kinds = " or ".join(repr(name) for name, kind in HEAD_KINDS.items() if kind.probability)
        raise ConfigError(
            f"[[task]] {task.name!r}: list_weight = {task.list_weight:g} orders positives before negatives, "
            f"and {task.head} heads have neither; take it out, or choose head = {kinds}"
        )
    if task.debias is not None and task.space != "observed":
        raise ConfigError(
            f"[[task]] {task.name!r}: debias = {task.debias!r} needs space = 'observed'; with "
            f"{task.space!r} no label is missing"
        )


def _check_step(task: TaskSpec) -> None:
    """Refuse levels that do not divide the range, and steps so wide that rounding to them hides the value."""
    steps = (task.high - task.low) / task.step
    if task.kind.levels:
        if abs(steps - round(steps)) > 1e-6 or not 1 <= round(steps) < MAX_LEVELS:
            raise ConfigError(
                f"[[task]] {task.name!r}: step={task.step} does not cut [{task.low}, {task.high}] into "
                f"2 to {MAX_LEVELS} levels; low, low + step, … must end at high"
            )
    elif task.kind.aggregate == "mean" and steps < MIN_STEPS:
        raise ConfigError(
            f"[[task]] {task.name!r}: step = {task.step} is wide for values of {task.low} to {task.high}: "
            f"aggregates round to it; write a smaller one, such as step = {(task.high - task.low) / 100:g}"
        )


def _check_parent(task: TaskSpec, seen: Mapping[str, TaskSpec]) -> None:
    if task.parent is None:
        return
    parent = _earlier(task, "parent", task.parent, seen)
    probabilities = parent.kind.probability and task.kind.probability
    if not (probabilities and parent.space == task.space == "impressions"):
        kinds = " or ".join(name for name, kind in HEAD_KINDS.items() if kind.probability)
        raise ConfigError(
            f"[[task]] {task.name!r}: a child and its parent {parent.name!r} must both be {kinds} "
            "tasks over all impressions"
        )


def _earlier(task: TaskSpec, key: str, name: str, seen: Mapping[str, TaskSpec]) -> TaskSpec:
    if name not in seen:
        raise ConfigError(
            f"[[task]] {task.name!r}: {key} {name!r} is not a task defined above it; "
            f"known so far: {', '.join(seen) or 'none'}"
        )
    return seen[name]
