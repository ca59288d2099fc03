"""Configs tried on a bench -> ModelReport: TPE, pruning, the best config as TOML."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
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
from training.tune.model.bench import Measured, ModelBench, improvements
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
_KEPT = 2
"""The form of what a study keeps of a trial: one of another form is another search."""
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
    pooled_losses: dict[str, float]
    """The same by AUC of all rows in place of AUC inside lists; they choose nothing."""
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
    pooled_baseline: dict[str, float]
    """The same by AUC of all rows."""
    trials: tuple[TrialLine, ...]
    best: int | None
    """Number of the trial that is written as TOML; None: no trial beat the config as given."""
    best_by_pooled: int | None
    """Which trial AUC of all rows would have chosen, of those that came to an end."""
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
        "kept": _KEPT,
    }
    pruner = _pruner(tune, several=len(names) > 1)
    with open_study(storage, ["maximize"] * len(names), pruner, identity) as study:
        baseline = _baseline(study, bench)
        evaluate = _Evaluation(bench, space, objective, baseline.losses, budget)

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

        def on_rung(rung: int, found: Measured) -> None:
            if several:  # nothing is pruned: a trial that is behind on one loss may lead on another
                return
            trial.report(_values(self.objective, found.losses, self.baseline)[0], rung)
            if rung < self.bench.config.tune.rungs and trial.should_prune():
                raise optuna.TrialPruned

        began = time.perf_counter()
        try:
            found = self.bench.train(config, self.bench.config.tune.rungs, on_rung, self.budget.check)
        except DivergedError as error:
            raise optuna.TrialPruned from error
        trial.set_user_attr("measured", json.dumps(asdict(found)))
        trial.set_user_attr("seconds", time.perf_counter() - began)
        return _values(self.objective, found.losses, self.baseline)


def _values(objective: str, losses: Mapping[str, float], baseline: Mapping[str, float]) -> list[float]:
    """Give what a search maximises of a trial's losses."""
    gains = improvements(losses, baseline)
    if objective == PARETO:
        return list(gains.values())
    return [float(np.mean(list(gains.values()))) if objective == MEAN else gains[objective]]


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


def _baseline(study: optuna.Study, bench: ModelBench) -> Measured:
    """Train the config as given, once a study."""
    if "measured_baseline" not in study.user_attrs:
        study.set_user_attr("measured_baseline", json.dumps(asdict(bench.train(bench.config))))
    return _measured(study.user_attrs["measured_baseline"])


def _measured(kept: str) -> Measured:
    return Measured(**json.loads(kept))


def _report(
    study: optuna.Study,
    bench: ModelBench,
    space: Space,
    names: tuple[str, ...],
    objective: str,
    baseline: Measured,
) -> ModelReport:
    days, plan = bench.days, bench.plan
    lines = tuple(_line(trial, space, names) for trial in finished(study))
    best = _best({trial.number: trial.values for trial in complete(study)})
    of_all_rows = {
        line.number: _values(objective, line.pooled_losses, baseline.pooled)
        for line in lines
        if line.state == "complete"
    }
    chosen = next((line for line in lines if line.number == best), None)
    stopped = sum(line.state == "pruned" for line in lines)
    notes = [f"{stopped} of {len(lines)} trials were stopped early"] if stopped else []
    if chosen is None:
        notes.append("no trial beat the config as given; raise --trials or --seconds")
    else:
        worse = [name for name, value in chosen.losses.items() if value > baseline.losses[name]]
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
        baseline=baseline.losses,
        pooled_baseline=baseline.pooled,
        trials=lines,
        best=best,
        best_by_pooled=_best(of_all_rows),
        best_losses=chosen.losses if chosen else baseline.losses,
        importance={name: importances(study, i) for i, name in enumerate(names)},
        notes=tuple(notes),
    )


def _best(trials: Mapping[int, Sequence[float]]) -> int | None:
    """Name the trial to write: of several objectives, the nearest to the ideal that loses nowhere.

    Args: trials: number -> what the search maximises.
    """
    safe = [number for number, values in trials.items() if all(v >= 0 for v in values) and any(values)]
    if not safe:
        return None
    if len(trials[safe[0]]) == 1:
        return max(safe, key=lambda number: trials[number][0])
    return safe[nearest_to_ideal([trials[number] for number in safe])]


def _line(trial: FrozenTrial, space: Space, names: tuple[str, ...]) -> TrialLine:
    done = trial.state == TrialState.COMPLETE
    reached = [trial.intermediate_values[max(trial.intermediate_values)]] if trial.intermediate_values else []
    values = trial.values if done else reached
    found = _measured(trial.user_attrs["measured"]) if done else Measured(losses={}, pooled={})
    return TrialLine(
        number=trial.number,
        state="complete" if done else "pruned",
        values=dict(zip(names, values, strict=False)),
        losses=found.losses,
        pooled_losses=found.pooled,
        settings=suggest(optuna.trial.FixedTrial(trial.params), space),
        seconds=float(trial.user_attrs.get("seconds", 0.0)),
    )
