"""One stage at work on a night: what it may read, and the folder that keeps its result."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from features.days import Days
from recsys.bundle import Bundle, is_sound
from recsys.config import RunConfig
from recsys.config_view import values, view
from recsys.stages import read_manifest
from recsys.user_key import UserKey
from training.gate import Decision
from training.host_choice import HostChoice
from training.night.night import Night
from training.night.plan import NightPlan

LOSSES = "losses.json"
"""Of a stage that learns: the losses of every step."""
CODE_VERSION = 17
"""Raise when a change alters what a stage gives for the same inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One row of the night's table."""

    name: str
    keys: tuple[str, ...]
    """The config keys that its result depends on."""
    inputs: tuple[str, ...]
    """What it takes, by name: outputs of earlier stages, or what the night begins with."""
    output: str | None
    run: Callable[..., Any]
    """(Step, **inputs) -> the output."""
    passed: tuple[str, ...] = ()
    """Keys that it may read and its result does not depend on: how work is spread, what it only hands on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stage at work."""

    stage: Stage
    night: Night
    """Its config has the stage's own keys alone."""
    inputs: Mapping[str, Any]

    @classmethod
    def of(cls, stage: Stage, night: Night, made: Mapping[str, Any]) -> "Step":
        """Give a stage its view of the config and, of all that was made, its inputs."""
        config = view(night.config, f"stage {stage.name}", (*stage.keys, *stage.passed))
        inputs = {name: made[name] for name in stage.inputs}
        return cls(stage=stage, night=replace(night, config=config), inputs=inputs)

    @property
    def config(self) -> RunConfig:
        """Give the stage's own keys alone."""
        return self.night.config

    def run(self) -> Any:
        """Do the stage's work, or find it done."""
        return self.stage.run(self, **self.inputs)

    def kept(self, build: Callable[[Path], dict[str, Any]]) -> Path:
        """Give the folder of the stage's result, which is built unless one of the same inputs is there."""
        identities = {name: identity(value) for name, value in self.inputs.items()}
        stages = self.night.stages

        def checked(folder: Path) -> dict[str, Any]:
            stages.require(self._read())
            return build(folder)

        return stages.run(self.stage.name, hashed(self.stage, self.config, identities), checked)

    def kept_bundle(self, build: Callable[[Path], dict[str, Any]]) -> str:
        """Give the version that the stage wrote; a bundle that was removed or damaged is written again."""
        written = []

        def noted(folder: Path) -> dict[str, Any]:
            written.append(folder)
            return build(folder)

        folder = self.kept(noted)
        version = str(read_manifest(folder)["version"])
        if not written and not is_sound(self.night.registry.path(version)):
            self.night.stages.forget(folder, f"bundle {version} is not there, or not what was written")
            version = str(read_manifest(self.kept(build))["version"])
        return version

    def _read(self) -> list[Path]:
        """List the stages that the result is made of; of the days those that the plan names, else the last.

        The day before the first is read too: it holds what was known of users and items. Where examination
        needs rows of earlier ones, the evaluation proves these one by one.
        """
        found = [value for value in self.inputs.values() if isinstance(value, Path)]
        days, plan = self.inputs.get("days"), self.inputs.get("plan")
        if isinstance(days, Days):
            first = days.last if plan is None else max(0, plan.first - 1)
            found += [snapshot.path for snapshot in days[first:]]
        return found


def hashed(stage: Stage, config: RunConfig, identities: Mapping[str, Any]) -> dict[str, Any]:
    """Give all that a stage's result depends on, as JSON values: its folder is named by their hash."""
    seen = view(config, f"stage {stage.name}", stage.keys)
    return {"code": CODE_VERSION, "config": values(seen), "inputs": dict(identities)}


def identity(value: Any) -> Any:
    """Give what tells an input from others; what lies in a folder or a bundle has a name made of a hash."""
    match value:
        case Days():
            return value[-1].path.name
        case Bundle():
            return value.version
        case Path():
            return value.name
        case NightPlan() | HostChoice():
            return asdict(value)
        case Decision():
            return str(value.verdict)
        case UserKey():
            return value.name
        case _:
            return value
