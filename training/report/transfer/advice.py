"""Verdicts and affinities -> share, split or group, with the reason in numbers."""

from collections.abc import Iterator, Mapping, Sequence

from recsys.metrics.table import METRICS
from training.report.transfer.transfer_report import Action, Advice, Finding, HeadTransfer, PairValue
from training.report.wording import enumerate_names, interval, signed, verdict

MAX_SEARCHED = 8
"""With more heads than this the partitions are too many: each head that is worse shared is then set apart."""
CONFLICT_SHARE, CONFLICT_COSINE = 0.6, -0.05

Groups = tuple[tuple[str, ...], ...]


def advise(heads: Mapping[str, HeadTransfer], affinities: Sequence[PairValue]) -> Advice:
    """Say what to do: verdicts decide whether to share, affinities with whom.

    When no head is worse shared, more models gain nothing. Otherwise: the partition with the highest sum,
    over heads, of the mean affinity of their companions (0 for a head alone). A head that is worse shared
    keeps only companions whose steps lower its loss. Where all others' steps do, it keeps none: its verdict
    was measured over whole trainings, an affinity over single steps.
    """
    worse = [name for name, head in heads.items() if head.effect.verdict == "worse"]
    better = [name for name, head in heads.items() if head.effect.verdict == "better"]
    groups: Groups = (tuple(heads),)
    action: Action = "share"
    if worse and len(heads) > 1:
        groups = _best_groups(list(heads), worse, affinities)
        action = "split" if len(groups) == len(heads) else "group"
    if action == "share":
        gain = f"{_are(better)} better shared" if better else "none is better shared either"
        headline = f"Share: no head is better alone; {gain}"
    else:
        headline = f"{action.capitalize()}: {_are(worse)} worse when all heads share one model"
    reasons = [_measured(name, head) for name, head in heads.items()]
    if action == "share" and not better:
        reasons.append("One model costs less to run than several; no other reason to share was found.")
    if action != "share":
        reasons.append("Models: " + "; ".join(" + ".join(group) for group in groups) + ".")
        reasons += _affinity_reasons(worse, affinities)
        if better:
            reasons.append(
                f"{_are(better)} better shared: if you can run a second model, keep the shared one for it."
            )
    return Advice(action=action, groups=groups, headline=headline, reasons=tuple(reasons))


def conflict_findings(cosines: Sequence[PairValue]) -> list[Finding]:
    """Point out the pairs of losses whose gradients oppose each other most of the time."""
    return [
        Finding(
            what=f"the gradients of {pair.first} and {pair.second} oppose each other on {pair.negative:.0%} "
            f"of the probes (mean cosine {pair.mean:+.2f})",
            remedy="try [training] balancing = 'upgrad', or a trunk with parts of each task's own (ple)",
        )
        for pair in cosines
        if pair.negative >= CONFLICT_SHARE and pair.mean <= CONFLICT_COSINE
    ]


def partitions(names: Sequence[str]) -> Iterator[Groups]:
    """Give every way to put names into groups."""
    if not names:
        yield ()
        return
    for rest in partitions(names[1:]):
        yield ((names[0],), *rest)
        for i, group in enumerate(rest):
            yield (*rest[:i], (names[0], *group), *rest[i + 1 :])


def _best_groups(names: Sequence[str], worse: Sequence[str], affinities: Sequence[PairValue]) -> Groups:
    if len(names) > MAX_SEARCHED:
        kept = tuple(n for n in names if n not in worse)
        return (*((kept,) if kept else ()), *((n,) for n in worse))
    effect = {(pair.first, pair.second): pair.mean for pair in affinities}

    def score(groups: Groups) -> tuple[float, int]:
        total = 0.0
        for group in groups:
            for head in group:
                others = [effect.get((other, head), 0.0) for other in group if other != head]
                total += sum(others) / len(others) if others else 0.0
        return total, -len(groups)

    def spares(group: Sequence[str], head: str) -> bool:
        helpful = {other for other in names if other != head and effect.get((other, head), 0.0) > 0}
        kept = helpful if len(helpful) < len(names) - 1 else set()
        return set(group) - {head} <= kept

    spared = (g for g in partitions(names) if all(spares(part, h) for part in g for h in worse if h in part))
    found = max(spared, key=score)
    order = {name: i for i, name in enumerate(names)}
    return tuple(sorted(found, key=lambda group: min(order[n] for n in group)))


def _are(names: Sequence[str]) -> str:
    return f"{enumerate_names(names)} {'is' if len(names) == 1 else 'are'}"


def _measured(name: str, head: HeadTransfer) -> str:
    effect = head.effect
    assert effect.a is not None
    assert effect.b is not None
    assert effect.difference is not None, "heads without the labels that their metric needs are refused"
    labels = f"{head.train_labels:,} labels" + (
        "" if head.train_positives is None else f", {head.train_positives:,} positive"
    )
    return (
        f"{name}: {METRICS[head.metric].title} {effect.a:.4f} alone, {effect.b:.4f} shared, difference "
        f"{signed(effect.difference)} {interval(effect)}, trained on {labels}: {verdict(effect)}."
    )


def _of_error(pair: PairValue) -> str:
    return "one probe" if pair.error is None else f"± {100 * pair.error:.3f}"


def _affinity_reasons(worse: Sequence[str], affinities: Sequence[PairValue]) -> list[str]:
    return [
        f"In a training step, the part of {pair.first} {'raises' if pair.mean < 0 else 'lowers'} the loss of "
        f"{pair.second} by {100 * abs(pair.mean):.3f} % ({_of_error(pair)})."
        for pair in affinities
        if pair.second in worse and pair.first != pair.second
    ]
