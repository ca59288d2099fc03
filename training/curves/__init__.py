"""Curves of a fit for people: losses, AUC, gradients, gates, speed. WRITERS says where they can go.

A `Recorder` watches the fit and makes the numbers; a writer takes them somewhere. Neither changes a weight or
a random state, and a writer that fails is left out: the fit goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from recsys.errors import ConfigError


class Writer(Protocol):
    """Takes the points of one run; what it raises is reported once, and it gets no more."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step, by curve; steps of a curve rise."""

    def close(self, *, failed: bool) -> None:
        """Write what is left. Args: failed: the fit ended by an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlace:
    """One learning stage of one night."""

    runs: Path
    """The RUNS folder."""
    name: str
    """`<night>/<stage>.<start of the stage's hash>`: the same when a killed night goes on."""
    about: Mapping[str, Any]
    """Key -> a number or a text: night, stage, config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is known of a run only when the night has gone on."""

    step: int
    """The last of the fit."""
    values: Mapping[str, float]
    """By curve: what the bundle was measured at."""
    tags: Mapping[str, str]
    """Version, parent, verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterKind:
    """One writer; its package is imported on use."""

    package: str
    """What `import` calls it."""
    extra: str
    open: str
    """Function: RunPlace, first step, say -> Writer; a first step above 0 goes on with the same run."""
    finish: str
    """Function: RunPlace, Outcome -> None; twice is as once."""


WRITERS: dict[str, WriterKind] = {
    "tensorboard": WriterKind(
        package="tensorboard",
        extra="tensorboard",
        open="training.curves.tensorboard_run:TensorBoardRun",
        finish="training.curves.tensorboard_run:finish",
    ),
    "mlflow": WriterKind(
        package="mlflow",
        extra="mlflow",
        open="training.curves.mlflow_run:MlflowRun",
        finish="training.curves.mlflow_run:finish",
    ),
}
"""Name in the config (`[training] writers`) -> the writer."""


def check_writers(names: Sequence[str]) -> None:
    """Refuse unknown writers, and those whose package is absent, before hours of work.

    Raises: ConfigError with the known names, or with what to install.
    """
    for name in names:
        if name not in WRITERS:
            raise ConfigError(f"[training] writers: {name!r} is unknown; known: {', '.join(WRITERS)}")
        kind = WRITERS[name]
        if find_spec(kind.package) is None:
            raise ConfigError(
                f'[training] writers names "{name}", and the package {kind.package} is not installed: '
                f'pip install "recsys-mtl[{kind.extra}]", or take {name} out'
            )
