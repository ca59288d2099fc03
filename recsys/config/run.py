"""TOML -> RunConfig: one frozen tree; every key known, every range checked here, once.

Modules take plain arguments; only builders and commands read this tree.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from recsys.config.features import ExecutionConfig, FeatureConfig, FeaturesConfig
from recsys.config.fusion import FusionConfig, build_fusion
from recsys.config.model import ItemItemConfig, ModelConfig, RetrievalConfig
from recsys.config.renamed import RENAMED, with_new_names
from recsys.config.section import Section
from recsys.config.serving import PolicyConfig, PublishConfig, RetentionConfig, ServingConfig, StoreConfig
from recsys.config.training import Calibrators, GateConfig, TrainingConfig, UpdatesConfig
from recsys.config.tune import ChosenConfig, TuneConfig
from recsys.config.validation import ValidationConfig
from recsys.errors import ConfigError
from recsys.head_kinds import HEAD_KINDS
from recsys.settings import explain, read_toml
from recsys.tasks import TaskSpec, check_tasks, check_zero_labels

Period = Literal["P1D", "P1W", "P1M"]
PERIOD_S = {"P1D": 86_400, "P1W": 7 * 86_400, "P1M": 28 * 86_400}

_IN_USE = {"in_use": True}
"""Context of the validation of a config that was accepted once."""


_NO_TASK: Final = (
    'a config needs at least one [[task]], a head to learn, such as name = "click", feedback = "click", '
    'head = "binary", window = "1d"; `recsys convert` writes them for a log that has feedback'
)


class RunConfig(Section):
    """All settings of a run."""

    timezone: str = "UTC"
    period: Period = "P1D"
    tasks: Annotated[tuple[TaskSpec, ...], Field(alias="task", description=_NO_TASK)]
    attributes: Annotated[tuple[FeatureConfig, ...], Field(alias="feature")] = ()
    features: FeaturesConfig = FeaturesConfig()
    execution: ExecutionConfig = ExecutionConfig()
    model: ModelConfig = ModelConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    item_item: ItemItemConfig = ItemItemConfig()
    training: TrainingConfig = TrainingConfig()
    calibration: Calibrators = Field(default_factory=dict, validate_default=True)
    gate: GateConfig = GateConfig()
    updates: UpdatesConfig = UpdatesConfig()
    fusion: FusionConfig = FusionConfig()
    policy: PolicyConfig = PolicyConfig()
    serving: ServingConfig = ServingConfig()
    publish: PublishConfig = PublishConfig()
    retention: RetentionConfig = RetentionConfig()
    store: StoreConfig = StoreConfig()
    validation: ValidationConfig = ValidationConfig()
    tune: TuneConfig = TuneConfig()
    chosen: ChosenConfig = ChosenConfig()

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"{value!r} is no IANA time zone; write one like 'UTC' or 'Asia/Shanghai'"
            ) from None
        return value

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        check_tasks(self.tasks)
        if info.context is not _IN_USE:
            check_zero_labels(self.tasks)
        build_fusion(self.tasks, self.fusion)
        names = [(f.entity, f.name) for f in self.attributes]
        for pair in names:
            if names.count(pair) > 1:
                raise ConfigError(f"[[feature]] {pair[1]!r} of entity {pair[0]!r} is defined twice")
        task = self.retrieval.task
        if task is not None and task not in {t.name for t in self.tasks if t.kind.probability}:
            kinds = " or ".join(name for name, kind in HEAD_KINDS.items() if kind.probability)
            raise ConfigError(f"[retrieval] task = {task!r} is no {kinds} task of this config; choose one")
        if self.store.url != "sqlite" and self.store.delta_ttl < 3 * PERIOD_S[self.period]:
            raise ConfigError(
                f"[store] delta_ttl = {self.store.delta_ttl} s: events must outlast three periods of "
                f"{self.period}; write at least {3 * PERIOD_S[self.period] // 86_400}d"
            )
        return self

    @property
    def taking_kinds(self) -> tuple[str, ...]:
        """List the feedback that says that an item was taken: of the retrieval task, and those below it."""
        retrieved = self.retrieval_task
        names = set() if retrieved is None else {retrieved.name}
        for task in self.tasks:  # parents come first
            if task.parent in names:
                names.add(task.name)
        return tuple(dict.fromkeys(task.feedback for task in self.tasks if task.name in names))

    @property
    def taken_kinds(self) -> tuple[str, ...]:
        """List the taking kinds, and those whose repeats are learned: what is kept of users' pasts."""
        repeats = self.policy.repeat_kinds if self.policy.repeat == "learn" else ()
        return tuple(dict.fromkeys((*self.taking_kinds, *repeats)))

    @property
    def retrieval_task(self) -> TaskSpec | None:
        """Give the task whose positives train retrieval; None when no task predicts a probability."""
        events = [t for t in self.tasks if t.kind.probability]
        if self.retrieval.task is not None:
            return next(t for t in events if t.name == self.retrieval.task)
        return events[0] if events else None


def load_config(path: Path) -> RunConfig:
    """Read and check a config file.

    Raises: ConfigError, naming the file, the key, the value and the known keys.
    """
    return parse_config(read_toml(path, "the config", "pass --config FILE"), str(path))


def parse_config(data: dict[str, object], where: str, *, in_use: bool = False) -> RunConfig:
    """Check a parsed TOML tree.

    Args: in_use: of a bundle; rules that are newer than it do not take it out of use.
    Raises: ConfigError listing every wrong key at once.
    """
    try:
        known = with_new_names(data) if in_use else data
        return RunConfig.model_validate(known, context=_IN_USE if in_use else None)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except ValidationError as error:
        raise ConfigError(explain(error, where, RunConfig, RENAMED)) from error


def default_config() -> RunConfig:
    """Read the packaged config of the simulated shop."""
    return load_config(Path(__file__).parents[1] / "shop.toml")


def period_start(day: date, period: Period) -> date:
    """Give the first day of the period that a day lies in (weeks start on Monday)."""
    if period == "P1M":
        return day.replace(day=1)
    if period == "P1W":
        return date.fromordinal(day.toordinal() - day.weekday())
    return day


def periods_between(first: date, last: date, period: Period) -> int:
    """Count the periods from the one that a day lies in to the one of another."""
    start, stop = period_start(first, period), period_start(last, period)
    if period == "P1M":
        return 12 * (stop.year - start.year) + stop.month - start.month
    return (stop - start).days // (PERIOD_S[period] // 86_400)
