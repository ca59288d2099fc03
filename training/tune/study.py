"""An Optuna study in a file: a killed search resumes and gives the same result.

Before each trial the sampler is made anew from the seed and the number of finished trials, and a killed
trial is forgotten, so the next suggestion depends on the finished trials alone.
"""

import fcntl
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from recsys.errors import ConfigError, DataError
from recsys.stages import digest

_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_SEEDS = 1_000_003


Direction = Literal["minimize", "maximize"]


class OutOfTimeError(Exception):
    """Raised inside a trial when the search's time is over: the trial is not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a search ends: after so many trials in all, or at an instant of time.monotonic."""

    trials: int
    deadline: float = math.inf

    @classmethod
    def of(cls, trials: int, seconds: float | None) -> "Budget":
        """Begin now."""
        return cls(trials=trials, deadline=math.inf if seconds is None else time.monotonic() + seconds)

    def check(self) -> None:
        """Raise OutOfTimeError when the time is over."""
        if time.monotonic() >= self.deadline:
            raise OutOfTimeError


@contextmanager
def open_study(
    storage: Path,
    directions: Sequence[Direction],
    pruner: optuna.pruners.BasePruner,
    identity: Mapping[str, Any],
) -> Iterator[optuna.Study]:
    """Open or create the study of a file; one process at a time.

    Args: identity: JSON values that a search depends on; a file of another search is refused.
    Raises: ConfigError when the file is of another search or in use; DataError when it is no study, or cannot
        be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _locked(storage):
        try:
            kept = optuna.storages.RDBStorage(f"sqlite:///{storage.resolve()}")
        except SQLAlchemyError as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{storage} is not a study: {reason}; choose another --storage") from error
        try:
            kept.engine.dispose()
            # Without fsync a killed process loses nothing, only a power cut could; with it a trial takes .3
            # s more.
            event.listen(kept.engine, "connect", lambda c, _: c.execute("PRAGMA synchronous=OFF").close())
            study = optuna.create_study(
                storage=kept,
                study_name="recsys",
                directions=list(directions),
                pruner=pruner,
                load_if_exists=True,
            )
            _require_same(study, storage, digest(dict(identity)))
            yield study
        finally:
            kept.remove_session()
            kept.engine.dispose()


def search(
    study: optuna.Study,
    make_sampler: Callable[[int], optuna.samplers.BaseSampler],
    seed: int,
    budget: Budget,
    evaluate: Callable[[optuna.Trial], Sequence[float]],
    on_trial: Callable[[int, int], None] = lambda _done, _all: None,
    first: Sequence[Mapping[str, float]] = (),
) -> None:
    """Make trials until the budget is spent.

    Args: make_sampler: seed -> sampler; on_trial: (done, all); first: values that the first trials take.
    """
    for stale in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(stale.number, state=TrialState.FAIL)
    done = len(finished(study))
    while done < budget.trials and time.monotonic() < budget.deadline:
        on_trial(done, budget.trials)
        # One at a time: all queued at once, the one that a kill interrupts would be lost to the next run.
        if done < len(first) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.enqueue_trial(dict(first[done]))
        study.sampler = make_sampler(seed * _SEEDS + done)
        trial = study.ask()
        try:
            values = list(evaluate(trial))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except OutOfTimeError:
            study.tell(trial, state=TrialState.FAIL)
            break
        else:
            study.tell(trial, values)
        done += 1
    on_trial(done, budget.trials)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Give the trials that came to an end or were pruned, oldest first."""
    return study.get_trials(deepcopy=False, states=_DONE)


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """Give the trials that came to an end, oldest first."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def nearest_to_ideal(values: Sequence[Sequence[float]]) -> int:
    """Give the row [N] nearest to the best of every column [T], each scaled to its range; high is good."""
    table = np.array(values)
    low, high = table.min(axis=0), table.max(axis=0)
    scaled = (high - table) / np.where(high > low, high - low, 1.0)
    return int(np.argmin((scaled**2).sum(axis=1)))


def importances(study: optuna.Study, objective: int) -> dict[str, float]:
    """Give each parameter's share of an objective's variance, largest first; none if nothing varied.

    Source: Hutter et al., ICML 2014 (fANOVA).
    """
    trials = complete(study)
    varied = {name for t in trials for name in t.params if t.params[name] != trials[0].params.get(name)}
    if len(trials) < 4 or not varied or len({trial.values[objective] for trial in trials}) == 1:
        return {}
    found = optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
        target=lambda trial: float(trial.values[objective]),
    )
    return {name: float(share) for name, share in found.items()}


def _require_same(study: optuna.Study, storage: Path, identity: str) -> None:
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
    elif known != identity:
        raise ConfigError(
            f"--storage {storage} holds another search (other config, days, bundle or seed): "
            "choose another file, or delete it to begin anew"
        )


@contextmanager
def _locked(storage: Path) -> Iterator[None]:
    try:
        storage.parent.mkdir(parents=True, exist_ok=True)
        lock = storage.with_name(f"{storage.name}.lock").open("w")
    except OSError as error:
        raise DataError(
            f"cannot keep the search in {storage}: {error.strerror}; choose another --storage"
        ) from error
    with lock as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"--storage {storage} is used by another search; wait for it, or choose another file"
            ) from None
        yield
