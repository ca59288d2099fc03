"""A bundle and days it was not trained on -> FusionReport: searched on half of the users, checked on half."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import optuna

from features.days import Days
from recsys.bundle import Bundle
from recsys.errors import DataError
from recsys.fusion import Fusion
from recsys.log import InteractionLog
from recsys.metrics.effect import Effect
from recsys.metrics.inference import paired_bootstrap_ratios
from recsys.records import NightRecord
from recsys.simulator.shop import Shop
from recsys.tasks import TaskSpec
from training.evaluation.choices import Choice, LoggedChoices, read_choices
from training.evaluation.evaluate import evaluated_periods, score_rows
from training.evaluation.leaks import LeakCheck
from training.evaluation.off_policy import SHOWN_ESTIMATOR, Asked, compare_off_policy, trust_notes
from training.predict import BundlePredictor
from training.tune.fusion.fusion_report import (
    MIN_EFFECTIVE,
    Candidate,
    FrontPoint,
    FusionReport,
    support_notes,
)
from training.tune.fusion.search import Point, Space, knee, search_front
from training.tune.fusion.truth import true_values
from training.tune.fusion.value import Lists, Value, effective_labels, is_checked, list_values, lists_of
from training.tune.study import Budget, finished, open_study

_REPLICATES = 400
_SOURCES = (
    "the sources' part of the score ({}) is in all values here, but not searched: it stays as it is, and the "
    "heads' part stays as wide beside it. A night with these weights sets the sources' by its own rule anew"
)
_OWN_WEIGHTS = "the application sent weights of its own with them"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a search reads: lists of two halves of the users, and the checked half's candidate sets."""

    version: str
    days: tuple[date, ...]
    searched: Lists
    checked: Lists
    choices: Sequence[Choice]
    examination: tuple[float, ...]
    notes: tuple[str, ...] = ()


def unseen_days(
    bundle: Bundle, record: NightRecord | None, log: InteractionLog, count: int
) -> tuple[date, date]:
    """Give the last `count` periods of the log that the bundle was not trained on: first and last day.

    Args: record: of the night that made the bundle, where there is one.
    Raises: DataError when there is none.
    """
    leaks = LeakCheck.of(bundle.manifest, bundle.config, {}, record)
    days = log.require_days("impressions")
    after = [day for day in days if day > leaks.trained_until][-count:]
    if not after:
        raise DataError(
            f"{bundle.version} was trained on days up to {leaks.trained_until} and the log ends on "
            f"{days[-1]}: no day is left to tune on; pass the evaluated form of the bundle, or a longer log"
        )
    return after[0], after[-1]


def read_material(
    predictor: BundlePredictor,
    record: NightRecord | None,
    log: InteractionLog,
    days: Days,
    span: tuple[date, date],
) -> Material:
    """Score every impression and every logged candidate of the days; halve the users."""
    config = predictor.bundle.config
    evaluated = evaluated_periods(days, config.tasks, *span)
    periods = evaluated[config.tasks[0].name]
    rows = score_rows(predictor, days, evaluated)
    whole = lists_of(rows, config.tasks, config.retrieval_task)
    halves = [half for half in (whole.take(~whole.checked), whole.take(whole.checked)) if half.request.size]
    labelled = [t for t in config.tasks if all(effective_labels(half, t) > 0 for half in halves)]
    if not labelled:
        raise DataError(
            f"no task has labels of both halves of the users from {span[0]} to {span[1]}: windows are still "
            "open, or there is too little feedback; choose more days"
        )
    notes = [
        f"too few labels of {t.name} are known on these days to search and check on: its weight is not "
        "searched, it keeps its ratio to the strongest of the others"
        for t in config.tasks
        if t not in labelled
    ]
    lists = lists_of(rows, labelled, config.retrieval_task)
    read = read_choices(predictor, log, days, periods)
    choices, left_out = _without_own_weights(read)
    scored = {task.name: days.dates_of(periods) for task in labelled}
    leaks = LeakCheck.of(predictor.bundle.manifest, config, scored, record)
    first = np.unique(lists.position, return_index=True)[1]
    return Material(
        version=predictor.bundle.version,
        days=tuple(days.dates_of(periods)),
        searched=lists.take(~lists.checked),
        checked=lists.take(lists.checked),
        choices=[c for c in choices if is_checked(c.user_id)],
        examination=tuple(float(lists.examination[i]) for i in first),
        notes=(*notes, *left_out, *leaks.warnings()),
    )


def _without_own_weights(read: LoggedChoices) -> tuple[list[Choice], list[str]]:
    """Leave out requests with weights of their own: a server would use these. Say what is missing."""
    choices = [choice for choice in read.choices if not choice.head_weights]
    own = len(read.choices) - len(choices)
    counted = LoggedChoices(
        choices=choices, left_out={**read.left_out, **({_OWN_WEIGHTS: own} if own else {})}
    )
    return choices, counted.notes()


def tune_fusion(
    material: Material,
    current: Fusion,
    formula: str,
    storage: Path,
    budget: Budget,
    *,
    k: int,
    seed: int,
    shop: Shop | None = None,
    on_trial: Progress = lambda _done, _all: None,
) -> FusionReport:
    """Search weights and say what they are worth. Args: shop: the simulator behind the log, if there is one.

    Raises: DataError when a half of the users has no list.
    """
    searched, checked = material.searched, material.checked
    if not searched.request.size or not checked.request.size:
        raise DataError("all lists are of one half of the users: too few users to search and check apart")
    before = {task: value.mean for task, value in list_values(searched, current, k).items()}
    space = Space.of(searched, current, formula)
    identity = {
        "search": "fusion",
        "version": material.version,
        "days": [str(day) for day in material.days],
        "space": [formula, space.spread, k, seed],
        "values": before,
        **({"sources": current.sources.model_dump()} if current.sources.weights else {}),
    }
    pruner = optuna.pruners.NopPruner()
    with open_study(storage, ["maximize"] * len(searched.tasks), pruner, identity) as study:
        front = search_front(study, searched, space, k, budget, seed, on_trial)
        trials = len(finished(study))
    if not front:
        raise DataError("the time was over before the first trial ended; raise --seconds")
    compare = _Comparison(material, current, k, seed, shop)
    picked = _picked(front, before).items()
    candidates = tuple(compare.candidate(name, point.fusion) for name, point in picked)
    return _report(material, current, front, candidates, k=k, trials=trials)


def _report(
    material: Material,
    current: Fusion,
    front: Sequence[Point],
    candidates: tuple[Candidate, ...],
    *,
    k: int,
    trials: int,
) -> FusionReport:
    searched, checked = material.searched, material.checked
    effective = {task.name: effective_labels(checked, task) for task in checked.tasks}
    return FusionReport(
        version=material.version,
        days=material.days,
        requests=searched.num_requests + checked.num_requests,
        users=(searched.num_users, checked.num_users),
        choices=len(material.choices),
        k=k,
        trials=trials,
        current=_front_point(current, None, searched, checked, k),
        front=tuple(_front_point(p.fusion, p.values, searched, checked, k) for p in front),
        candidates=candidates,
        effective=effective,
        examination=material.examination,
        notes=(
            *material.notes,
            *support_notes(effective, "the value", "labels"),
            *_notes(candidates[0], current, effective),
        ),
    )


def _picked(front: Sequence[Point], before: Mapping[str, float]) -> dict[str, Point]:
    """Name the points that are compared with the current weights: the knee, and the best of each task."""
    best = {f"best {task}": max(front, key=lambda point: point.values[task]) for task in before}
    return {"knee": knee(front, before), **best}


class _Comparison:
    """Compares weights with the current ones on the checked users, pairs and all."""

    def __init__(self, material: Material, current: Fusion, k: int, seed: int, shop: Shop | None) -> None:
        self.material, self.k, self.seed, self.shop = material, k, seed, shop
        self.users = {u: n for n, u in enumerate(sorted({c.user_id for c in material.choices}))}
        self.tasks: list[TaskSpec] = [t for t in material.checked.tasks if t.space == "impressions"]
        self.current = current
        self.before = self._values(current)

    def candidate(self, name: str, fusion: Fusion) -> Candidate:
        shown, truth = self._values(fusion)
        now, then = (Asked(choices=self.material.choices, fusion=f) for f in (self.current, fusion))
        logged, missing = compare_off_policy(
            now, then, self.tasks, self.k, seed=self.seed, replicates=_REPLICATES
        )
        return Candidate(
            name=name,
            fusion=fusion,
            effects=self._effects(self.before[0], shown),
            off_policy=logged,
            missing=tuple(missing),
            truth=self._effects(self.before[1], truth),
        )

    def _values(self, fusion: Fusion) -> tuple[dict[str, Value], dict[str, Value]]:
        choices = self.material.choices
        shown = list_values(self.material.checked, fusion, self.k)
        truth = true_values(self.shop, choices, fusion, self.users, self.k) if self.shop and choices else {}
        return shown, truth

    def _effects(self, before: Mapping[str, Value], after: Mapping[str, Value]) -> dict[str, Effect]:
        return {
            name: paired_bootstrap_ratios(
                name,
                (before[name].total, before[name].weight),
                (value.total, value.weight),
                generator=np.random.default_rng(self.seed),
                replicates=_REPLICATES,
            )
            for name, value in after.items()
        }


def _front_point(
    fusion: Fusion, found: Mapping[str, float] | None, searched: Lists, checked: Lists, k: int
) -> FrontPoint:
    values = found or {task: value.mean for task, value in list_values(searched, fusion, k).items()}
    return FrontPoint(
        fusion=fusion,
        found=dict(values),
        checked={task: value.mean for task, value in list_values(checked, fusion, k).items()},
    )


def _notes(recommended: Candidate, current: Fusion, effective: Mapping[str, float]) -> list[str]:
    notes = [*trust_notes(recommended.off_policy, ("current", "these")), *recommended.missing]
    if current.sources.weights:
        notes.append(_SOURCES.format(", ".join(current.sources.weights)))
    verdicts = _trusted(recommended, effective)
    if "better" not in verdicts.values():
        notes.append(
            "no evidence on the checked users that the recommended weights beat the current ones on any "
            "task; keep the current ones or take more days"
        )
    worse = [what for what, verdict in verdicts.items() if verdict == "worse"]
    if worse:
        notes.append(f"the recommended weights are worse than the current ones: {', '.join(worse)}")
    if recommended.fusion.formula != current.formula or recommended.fusion.formula != "additive":
        notes.append(
            "scores of another formula have another spread: look at [policy] temperature, which divides them"
        )
    return notes


def _trusted(candidate: Candidate, effective: Mapping[str, float]) -> dict[str, str | None]:
    """Give the verdicts that rest on enough: of re-ranked lists, and of lists that a server would draw."""
    shown = {f"re-ranked {t}": e for t, e in candidate.effects.items() if effective[t] >= MIN_EFFECTIVE}
    drawn = {
        f"off-policy {task}": both.effects[SHOWN_ESTIMATOR]
        for task, both in candidate.off_policy.items()
        if not both.problems
    }
    return {name: effect.verdict for name, effect in (shown | drawn).items()}
