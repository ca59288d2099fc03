"""Verdicts and affinities -> share, split or group, with the reason in numbers."""

from collections.abc import Iterator, Mapping, Sequence

from training.report.effects import TITLES
from training.report.transfer.report import Action, Advice, Finding, HeadTransfer, PairValue

MAX_SEARCHED = 8
"""With more heads than this the partitions are too many; hurt heads are then set apart, one by one."""
CONFLICT_SHARE, CONFLICT_COSINE = 0.6, -0.05

Groups = tuple[tuple[str, ...], ...]


def advise(heads: Mapping[str, HeadTransfer], affinities: Sequence[PairValue]) -> Advice:
    """Say what to do: verdicts decide whether to share, affinities with whom.

    Without a hurt head there is nothing to gain by more models. With one, the best partition by affinity: the
    sum over heads of the mean effect of their companions' steps, 0 alone. A hurt head keeps only companions
    whose steps lower its loss; where all others' do, none: what sharing did to it was measured, the affinity
    is of single steps.
    """
    hurt = [name for name, head in heads.items() if head.verdict == "hurt"]
    helped = [name for name, head in heads.items() if head.verdict == "helped"]
    groups: Groups = (tuple(heads),)
    action: Action = "share"
    if hurt and len(heads) > 1:
        groups = _best_groups(list(heads), hurt, affinities)
        action = "split" if len(groups) == len(heads) else "group"
    if action == "share":
        gain = f"it helps {_and(helped)}" if helped else "none shows a gain either"
        headline = f"Share: no head is better off alone; {gain}"
    else:
        headline = f"{action.capitalize()}: sharing all hurts {_and(hurt)}"
    reasons = [_said(name, head) for name, head in heads.items()]
    if action == "share" and not helped:
        reasons.append("One model costs less to run than several: the only reason shown here to share.")
    if action != "share":
        reasons.append("Models: " + "; ".join(" + ".join(group) for group in groups) + ".")
        reasons += _affinity_reasons(hurt, affinities)
        if helped:
            reasons.append(
                f"{_and(helped)} gained from sharing: keep the shared model for it beside the others if a "
                "second model can be afforded."
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


def _best_groups(names: Sequence[str], hurt: Sequence[str], affinities: Sequence[PairValue]) -> Groups:
    if len(names) > MAX_SEARCHED:
        kept = tuple(n for n in names if n not in hurt)
        return (*((kept,) if kept else ()), *((n,) for n in hurt))
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

    spared = (g for g in partitions(names) if all(spares(part, h) for part in g for h in hurt if h in part))
    found = max(spared, key=score)
    order = {name: i for i, name in enumerate(names)}
    return tuple(sorted(found, key=lambda group: min(order[n] for n in group)))


def _said(name: str, head: HeadTransfer) -> str:
    effect = head.effect
    interval = (
        "no interval"
        if effect.ci_low is None or effect.ci_high is None
        else f"[{effect.ci_low:+.4f}, {effect.ci_high:+.4f}]"
    )
    assert effect.a is not None
    assert effect.b is not None
    assert effect.diff is not None, "heads without the labels that their metric needs are refused"
    labels = f"{head.train_labels:,} labels" + (
        "" if head.train_positives is None else f", {head.train_positives:,} positive"
    )
    return (
        f"{name}: {TITLES[head.metric]} {effect.a:.4f} alone, {effect.b:.4f} shared, difference "
        f"{effect.diff:+.4f} {interval}, learnt from {labels}: {head.verdict}."
    )


def _affinity_reasons(hurt: Sequence[str], affinities: Sequence[PairValue]) -> list[str]:
    return [
        f"The part of a step that {pair.first} makes {'raises' if pair.mean < 0 else 'lowers'} the loss of "
        f"{pair.second} by {100 * abs(pair.mean):.3f} % (± {100 * pair.error:.3f}) of itself."
        for pair in affinities
        if pair.second in hurt and pair.first != pair.second
    ]


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
