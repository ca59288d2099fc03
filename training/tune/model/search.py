"""Configs tried on a bench -> ModelReport: TPE, pruning, the best config as TOML."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from recsys.config import RunConfig
from recsys.config.tune import Choice, TuneConfig
from recsys.errors import ConfigError
from recsys.settings import to_toml
from training.errors import DivergedError
from training.tune.model.bench import ModelBench, improvements
from training.tune.space import Space, space_of, suggest, with_values
from training.tune.study import (
    Budget,
    complete,
    finished,
    importances,
    nearest_to_ideal,
    open_study,
    search,
)

MEAN, PARETO = "mean", "pareto"
_NOT_TRAINED = {"serving", "store", "policy", "gate", "fusion", "validation", "execution", "chosen"}
"""Sections that no trial depends on: a search goes on when they change."""
Progress = Callable[[int, int], None]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrialLine(_Part):
    """One trial."""

    number: int
    state: Literal["complete", "pruned"]
    values: dict[str, float]
    """Objective -> relative improvement over the config as given; of a pruned trial, where it stood."""
    losses: dict[str, float]
    """Validation losses at the end; none of a pruned trial."""
    settings: dict[str, Choice]
    seconds: float


class ModelReport(_Part):
    """What a search of configs found."""

    night: str
    train_days: tuple[str, str]
    validation_days: tuple[str, ...]
    gate_days: tuple[str, ...]
    """Not read as impressions by any trial: what the night evaluates the result on."""
    objective: str
    pruner: str
    baseline: dict[str, float]
    """Validation losses of the config as given."""
    trials: tuple[TrialLine, ...]
    best: int | None
    """Number of the trial that is written as TOML; None: no trial beat the config as given."""
    best_losses: dict[str, float]
    importance: dict[str, dict[str, float]]
    """Objective -> setting -> share of variance."""
    notes: tuple[str, ...]

    @property
    def best_line(self) -> TrialLine | None:
        """Give the trial that is written as TOML."""
        return next((t for t in self.trials if t.number == self.best), None)


def tune_model(
    bench: ModelBench,
    objective: str,
    storage: Path,
    budget: Budget,
    on_trial: Progress = lambda _done, _all: None,
) -> ModelReport:
    """Search configs on a bench's validation days.

    Args: objective: "mean" of the relative improvements, "pareto" for all of them, or one loss's name.
    Raises: ConfigError for an unknown objective, a space that cannot be searched, another search's storage.
    """
    config, tune = bench.config, bench.config.tune
    space = space_of(config)
    if objective not in (MEAN, PARETO, *bench.measures):
        known = ", ".join((MEAN, PARETO, *bench.measures))
        raise ConfigError(f"--objective {objective!r} is unknown; known here: {known}")
    names = bench.measures if objective == PARETO else (objective,)
    identity = {
        "search": "model",
        "config": config.model_dump(mode="json", by_alias=True, exclude=_NOT_TRAINED),
        "space": {key: d.model_dump(mode="json") for key, d in space.items()},
        "days": bench.days[-1].path.name,
        "objective": objective,
    }
    pruner = _pruner(tune, several=len(names) > 1)
    with open_study(storage, ["maximize"] * len(names), pruner, identity) as study:
        baseline = _baseline(study, bench)
        evaluate = _Evaluation(bench, space, objective, baseline, budget)

        def sampler(number: int) -> optuna.samplers.BaseSampler:
            return optuna.samplers.TPESampler(n_startup_trials=tune.startup, seed=number % 2**32)

        search(study, sampler, config.training.seed, budget, evaluate, on_trial)
        return _report(study, bench, space, names, objective, baseline)


class _Evaluation:
    """Trains one trial's config and values it."""

    def __init__(
        self,
        bench: ModelBench,
        space: Space,
        objective: str,
        baseline: Mapping[str, float],
        budget: Budget,
    ) -> None:
        self.bench, self.space, self.objective = bench, space, objective
        self.baseline, self.budget = baseline, budget

    def __call__(self, trial: optuna.Trial) -> list[float]:
        config = with_values(self.bench.config, suggest(trial, self.space))
        several = self.objective == PARETO

        def on_rung(rung: int, losses: Mapping[str, float]) -> None:
            if several:  # nothing is pruned: a trial that is behind on one loss may lead on another
                return
            trial.report(self._values(losses)[0], rung)
            if rung < self.bench.config.tune.rungs and trial.should_prune():
                raise optuna.TrialPruned

        began = time.perf_counter()
        try:
            losses = self.bench.train(config, self.bench.config.tune.rungs, on_rung, self.budget.check)
        except DivergedError as error:
            raise optuna.TrialPruned from error
        trial.set_user_attr("losses", json.dumps(losses))
        trial.set_user_attr("seconds", time.perf_counter() - began)
        return self._values(losses)

    def _values(self, losses: Mapping[str, float]) -> list[float]:
        gains = improvements(losses, self.baseline)
        if self.objective == PARETO:
            return list(gains.values())
        return [float(np.mean(list(gains.values()))) if self.objective == MEAN else gains[self.objective]]


def best_toml(config: RunConfig, report: ModelReport) -> str:
    """Write the config of the best trial, or the one as given, whole."""
    line = report.best_line
    data = with_values(config, line.settings if line else {}).model_dump(
        mode="json", by_alias=True, exclude_defaults=True
    )
    if line is not None:
        days = {*map(str, config.chosen.model_days), *report.validation_days}
        data["chosen"] = {**data.get("chosen", {}), "model_days": sorted(days)}
    what = f"trial {line.number} of {len(report.trials)}" if line else "the config as given: no trial beat it"
    losses = ", ".join(f"{name} {value!r}" for name, value in report.best_losses.items())
    where = ", ".join(report.validation_days)
    return f"# recsys tune model, {what}\n# validation losses on {where}: {losses}\n{to_toml(data)}"


def _pruner(tune: TuneConfig, *, several: bool) -> optuna.pruners.BasePruner:
    if several or tune.pruner == "none":
        return optuna.pruners.NopPruner()
    if tune.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=tune.rungs, reduction_factor=2)
    return optuna.pruners.MedianPruner(n_startup_trials=tune.startup)


def _baseline(study: optuna.Study, bench: ModelBench) -> dict[str, float]:
    """Train the config as given, once a study."""
    if "baseline" not in study.user_attrs:
        study.set_user_attr("baseline", json.dumps(bench.train(bench.config)))
    known: dict[str, float] = json.loads(study.user_attrs["baseline"])
    return known


def _report(
    study: optuna.Study,
    bench: ModelBench,
    space: Space,
    names: tuple[str, ...],
    objective: str,
    baseline: dict[str, float],
) -> ModelReport:
    days, plan = bench.days, bench.plan
    lines = tuple(_line(trial, space, names) for trial in finished(study))
    best = _best(complete(study), names)
    chosen = next((line for line in lines if line.number == best), None)
    stopped = sum(line.state == "pruned" for line in lines)
    notes = [f"{stopped} of {len(lines)} trials were stopped early"] if stopped else []
    if chosen is None:
        notes.append("no trial beat the config as given; raise --trials or --seconds")
    else:
        worse = [name for name, value in chosen.losses.items() if value > baseline[name]]
        if worse:
            notes.append(f"the best trial is worse than the config as given for {', '.join(worse)}")
        notes.append(
            f"the loss of the best of {len(lines)} is too low, because it was chosen by it; run the night "
            "with best.toml: its gate evaluates it on days that no trial has seen"
        )
    periods = plan.train_periods
    return ModelReport(
        night=str(days[-1].day),
        train_days=(str(days[periods[0]].day), str(days[periods[-1]].day)),
        validation_days=tuple(map(str, days.dates_of(sorted(set(plan.calibrate.values()))))),
        gate_days=tuple(map(str, days.dates_of(sorted(set(plan.evaluate.values()))))),
        objective=objective,
        pruner="none" if len(names) > 1 else bench.config.tune.pruner,
        baseline=baseline,
        trials=lines,
        best=best,
        best_losses=chosen.losses if chosen else baseline,
        importance={name: importances(study, i) for i, name in enumerate(names)},
        notes=tuple(notes),
    )


def _best(trials: list[FrozenTrial], names: tuple[str, ...]) -> int | None:
    """Name the trial to write: of several objectives, the nearest to the ideal that loses nowhere."""
    safe = [t for t in trials if all(value >= 0 for value in t.values) and any(t.values)]
    if not safe:
        return None
    if len(names) == 1:
        return max(safe, key=lambda trial: float(trial.values[0])).number
    return safe[nearest_to_ideal([trial.values for trial in safe])].number


def _line(trial: FrozenTrial, space: Space, names: tuple[str, ...]) -> TrialLine:
    done = trial.state == TrialState.COMPLETE
    reached = [trial.intermediate_values[max(trial.intermediate_values)]] if trial.intermediate_values else []
    values = trial.values if done else reached
    return TrialLine(
        number=trial.number,
        state="complete" if done else "pruned",
        values=dict(zip(names, values, strict=False)),
        losses=json.loads(trial.user_attrs["losses"]) if done else {},
        settings=suggest(optuna.trial.FixedTrial(trial.params), space),
        seconds=float(trial.user_attrs.get("seconds", 0.0)),
    )
