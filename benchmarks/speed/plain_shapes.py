"""Heads, trunk and model as plain values: what `recsys.shapes` asks for, where no config can be read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from recsys.head_kinds import HEAD_KINDS, HeadKind
from recsys.shapes import HeadSpec, ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainHead:
    """One head."""

    name: str
    head: str
    """A name of `HEAD_KINDS`."""
    loss_name: str
    observation: str
    parent: str | None = None
    transfer_from: str | None = None
    hidden: tuple[int, ...] | None = None
    debias: str | None = None
    learning_rate_scale: float = 1.0
    weight: float = 1.0
    list_weight: float = 0.0
    low: float = 0.0
    high: float = 1.0
    step: float = 1.0
    num_levels: int = 2

    @classmethod
    def binary(cls, name: str) -> Self:
        """Describe a head for a yes or no, with nothing beside it."""
        kind = HEAD_KINDS["binary"]
        return cls(
            name=name, head="binary", loss_name=next(iter(kind.losses)), observation=f"{name}:observed"
        )

    @classmethod
    def of(cls, spec: HeadSpec) -> Self:
        """Take what the model reads of a task."""
        return cls(**{field.name: getattr(spec, field.name) for field in fields(cls)})

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """Build it from JSON values."""
        hidden = said["hidden"]
        return cls(**{**said, "hidden": None if hidden is None else tuple(hidden)})

    @property
    def kind(self) -> HeadKind:
        """Give what is known of the head's kind."""
        return HEAD_KINDS[self.head]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainTrunk:
    """The shape of a trunk."""

    name: str
    num_experts: int
    hidden: tuple[int, ...]
    task_experts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainHistory:
    """The shape of what reads a user's last events."""

    encoder: str
    dim: int
    num_layers: int
    num_heads: int
    dropout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainModel:
    """The shape of a ranker."""

    trunk: PlainTrunk
    history: PlainHistory
    head_hidden: int
    tower_hidden: int
    embedding_dim: int
    attention_dim: int
    dropout: float
    position_bias: bool
    ensemble_size: int

    @classmethod
    def of(cls, shape: ModelShape) -> Self:
        """Take what the model reads of `[model]`."""
        trunk = PlainTrunk(**{f.name: getattr(shape.trunk, f.name) for f in fields(PlainTrunk)})
        history = PlainHistory(**{f.name: getattr(shape.history, f.name) for f in fields(PlainHistory)})
        own = {f.name: getattr(shape, f.name) for f in fields(cls) if f.name not in ("trunk", "history")}
        return cls(trunk=trunk, history=history, **own)

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """Build it from JSON values."""
        trunk = PlainTrunk(**{**said["trunk"], "hidden": tuple(said["trunk"]["hidden"])})
        return cls(**{**said, "trunk": trunk, "history": PlainHistory(**said["history"])})

    def as_json(self) -> dict[str, Any]:
        """Give JSON values."""
        return asdict(self)
