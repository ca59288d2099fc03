"""Measure a set: train its rows, make figures with intervals, choose on validation, compare pair by pair."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.quality.baselines.tuned_trees import LIGHTGBM
from benchmarks.quality.quality_set import CHOSEN, Measure, News, Outputs, QualitySet, Row, Run
from benchmarks.quality.report import (
    Difference,
    Figure,
    ModelRow,
    QualityReport,
    choose,
    choose_lists,
    difference,
)
from recsys.errors import ConfigError
from recsys.metrics.effect import Effect
from recsys.metrics.inference import (
    paired_bootstrap,
    paired_bootstrap_means,
    paired_bootstrap_means_seeds,
    paired_bootstrap_seeds,
)
from training.baselines.boosted_trees import require_lightgbm

REPLICATES = 300
"""Draws of users behind the interval of one row."""

Trained = Mapping[str, Sequence[Run]]


def measure_set(
    of: QualitySet, seeds: int, asked: Sequence[str], news: News, peers: Sequence[str] = ()
) -> QualityReport:
    """Train the rows that are asked for, when none is all but those on request, and report on them.

    Args: peers: whose rows are trained, too.
    Raises: ConfigError when a row or a peer is unknown, a row needs more seeds, or LightGBM, which is not
    installed.
    """
    for peer in peers:
        if peer not in of.peers:
            raise ConfigError(f"--peer {peer!r} is not known; this set has: {', '.join(of.peers) or 'none'}")
    wanted = wanted_rows(of.rows, asked, seeds, [row for peer in peers for row in of.peers[peer]])
    compared = {first for first, other in of.questions if other in wanted and not of.rows[other].shown}
    trained = {n: _train(of, n, seeds, news) for n in of.rows if n in wanted or n in compared}
    table = [model_row(of, name, trained[name], seeds) for name in wanted if of.rows[name].shown]
    return QualityReport(of=of, rows=tuple(table), differences=tuple(_differences(of, table, trained)))


def wanted_rows(
    known: Mapping[str, Row], asked: Sequence[str], seeds: int, more: Sequence[str] = ()
) -> list[str]:
    """Give the rows to train, in the table's order. Args: more: beside those asked for, or all by default.

    Raises: ConfigError, before anything is trained, as `measure_set` does.
    """
    for name in asked:
        if name not in known:
            raise ConfigError(f"--rows names {name!r}; this set has: {', '.join(known)}")
        if known[name].least_seeds > seeds:
            raise ConfigError(f"row {name!r} is a difference over seeds; give --seeds 2 or more")
    default = [n for n, row in known.items() if not row.on_request]
    chosen = {*(asked or default), *more}
    wanted = [n for n, row in known.items() if n in chosen and row.least_seeds <= seeds]
    if LIGHTGBM in wanted:
        require_lightgbm()
    return wanted


def _train(of: QualitySet, name: str, seeds: int, news: News) -> list[Run]:
    row = of.rows[name]
    runs: list[Run] = []
    for seed in range(seeds if row.seeded else 1):
        found = row.train(seed)
        runs += [found] if isinstance(found, Run) else found
        said = [f"{m.head} {m.metric} {m.value(runs[-1].validation):.4f}" for m in _given(of, runs[-1])]
        note = f"{runs[-1].note}, " if runs[-1].note else ""
        news(f"{name}, seed {seed}: {note}{'validation ' if said else 'measured'}{', '.join(said)}")
    return runs


def _given(of: QualitySet, run: Run) -> list[Measure]:
    return [m for m in of.validation if m.output in run.validation]


def model_row(of: QualitySet, name: str, runs: Sequence[Run], seeds: int) -> ModelRow:
    """Measure a row's runs."""
    known = {m.key: statistics.fmean(m.value(r.validation) for r in runs) for m in _given(of, runs[0])}
    heads: dict[str, dict[str, Figure]] = {}
    for measure in of.test:
        if measure.output in runs[0].test:
            found = figure(measure, [run.test for run in runs], known.get(measure.key))
            heads.setdefault(measure.head, {})[measure.metric] = found
    row, notes = of.rows[name], dict.fromkeys(run.note for run in runs if run.note)
    return ModelRow(
        name=name,
        heads=heads,
        seeds=seeds if row.seeded else 1,
        note=", ".join(notes),
        ours=row.ours,
        costs={name: statistics.fmean(run.costs[name] for run in runs) for name in runs[0].costs},
    )


def figure(measure: Measure, runs: Sequence[Outputs], validation: float | None = None) -> Figure:
    """Average a measure over runs, with its interval."""
    known = None if validation is None or math.isnan(validation) else validation
    if measure.repeats == "places":
        return over_repeats(np.mean([measure.of(run) for run in runs], axis=0).tolist(), known)
    if measure.repeats == "users" and measure.has_interval:
        return _over_users(measure, runs, known)
    values = [measure.value(run) for run in runs]
    if measure.repeats == "runs":
        return over_repeats(values, known)
    return Figure(value=statistics.fmean(values), low=None, high=None, runs=tuple(values), validation=known)


def over_repeats(values: Sequence[float], validation: float | None = None) -> Figure:
    """Average repeats; the interval is Student's over them, unknown of a single one."""
    from scipy import stats

    mean, num = statistics.fmean(values), len(values)
    if num == 1:
        return Figure(value=mean, low=None, high=None, runs=tuple(values), validation=validation)
    half = float(stats.t.ppf(0.975, num - 1)) * statistics.stdev(values) / math.sqrt(num)
    return Figure(value=mean, low=mean - half, high=mean + half, runs=tuple(values), validation=validation)


def _over_users(measure: Measure, runs: Sequence[Outputs], validation: float | None) -> Figure:
    """Average runs; the interval draws users, one draw for all runs.

    Draws on which the metric is not defined, such as an AUC without positives, are left out.
    """
    found = [measure.statistic(run) for run in runs]
    num_users, rng = found[0][1], np.random.default_rng(0)
    values = [statistic(np.ones(num_users)) for statistic, _ in found]
    drawn = []
    for _ in range(REPLICATES if num_users else 0):
        times = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users).astype(float)
        drawn.append(statistics.fmean(statistic(times) for statistic, _ in found))
    defined = [value for value in drawn if not math.isnan(value)]
    low, high = np.quantile(defined, [0.025, 0.975]).tolist() if defined else (None, None)
    mean = statistics.fmean(values)
    return Figure(value=mean, low=low, high=high, runs=tuple(values), validation=validation)


def _differences(of: QualitySet, table: Sequence[ModelRow], trained: Trained) -> Iterator[Difference]:
    """Answer the set's questions, and hold the chosen row against every baseline, on all figures of both."""
    pairs = list(of.questions)
    if any(row.ours and row.validation for row in table):
        chosen = choose(table).name
        pairs = [(chosen if first == CHOSEN else first, other) for first, other in pairs]
        pairs += [(chosen, row.name) for row in table if not row.ours]
        if (of_lists := choose_lists(table, choose(table))) is not None:
            pairs += [(of_lists.name, row.name) for row in table if not row.ours]
    for row, other in dict.fromkeys(pairs):
        if row == other or row not in trained or other not in trained:
            continue
        for measure in of.test:
            own, theirs = ([run.test for run in trained[name]] for name in (row, other))
            both = measure.output in own[0] and measure.output in theirs[0]
            if both and measure.repeats != "places" and measure.has_interval:
                yield difference(row, other, measure.key, paired(measure, own, theirs))


def paired(measure: Measure, own: Sequence[Outputs], theirs: Sequence[Outputs]) -> Effect:
    """Compare two rows on the same draws of users and, where either has several runs, of these too.

    Two single runs are compared over users alone: that says nothing of the luck of training. One run stands
    for as many as the other row has.
    """
    runs = max(len(own), len(theirs))
    a, b = ([measure.of(run) for run in of] * (runs // len(of)) for of in (theirs, own))
    rng, higher = np.random.default_rng(0), measure.higher_is_better
    if measure.pooled is None and runs == 1:
        return paired_bootstrap_means(measure.metric, a[0], b[0], generator=rng, higher_is_better=higher)
    if measure.pooled is None:
        return paired_bootstrap_means_seeds(measure.metric, a, b, generator=rng, higher_is_better=higher)
    assert measure.label is not None, "a metric over rows needs labels"
    assert measure.user is not None, "a metric over rows needs users"
    name, label, user = measure.pooled, measure.label, measure.user
    weight, lists = measure.weight, measure.lists
    if runs == 1:
        return paired_bootstrap(name, label, a[0], b[0], user, generator=rng, weight=weight, lists=lists)
    return paired_bootstrap_seeds(name, label, a, b, user, generator=rng, weight=weight, lists=lists)
