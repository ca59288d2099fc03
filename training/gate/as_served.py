"""The bundle as a server would load it: its golden requests, its index, its size, the time of a request."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from recsys.config import GateConfig
from recsys.records import Check, Verdict
from training.gate.decision import finding

LEAST_MS = 5.0
"""A request that takes less processor time is never held: a busy machine measures that much by chance."""


class ServedFacts(BaseModel):
    """What was measured of one loaded bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    golden: str | None
    """Why its golden requests are not reproduced; None: they are."""
    index_recall: float
    """Share of the exact nearest items that its own index finds, for vectors of its items."""
    min_recall: float
    """What its config asks for."""
    size_bytes: int
    request_ms: float
    """Median processor time of user side, search and scoring of one request."""


def check_served(challenger: ServedFacts, champion: ServedFacts | None, config: GateConfig) -> list[Check]:
    """Hold what a server would refuse, cannot search, or could not carry."""
    checks = [_golden(challenger), _recall(challenger)]
    if champion is not None:
        checks += [_size(challenger, champion, config), _time(challenger, champion, config)]
    return checks


def check_lists_alike(
    challenger: Sequence[Sequence[str]], champion: Sequence[Sequence[str]], config: GateConfig
) -> list[Check]:
    """Hold lists that have next to nothing in common with the live ones, and those of one list for all.

    Args: both: the first page of the same users, item by item.
    """
    if not challenger:
        return []
    shared = [len({*a} & {*b}) / max(1, len(b)) for a, b in zip(challenger, champion, strict=True)]
    overlap = sum(shared) / len(shared)
    shown, before = (len({item for page in pages for item in page}) for pages in (challenger, champion))
    wide = shown >= config.min_coverage_ratio * before
    return [
        finding(
            "overlap of the pages",
            Verdict.PROMOTE if overlap >= config.min_overlap else Verdict.HOLD,
            f"{overlap:.1%} of a user's first page is on the live bundle's; at least "
            f"{config.min_overlap:.1%} is required",
            overlap=overlap,
        ),
        finding(
            "coverage of the pages",
            Verdict.PROMOTE if wide else Verdict.HOLD,
            f"{shown} items on the first pages of {len(challenger)} users, champion {before}; at least "
            f"{config.min_coverage_ratio:g} times as many are required",
            items=shown,
            champion=before,
        ),
    ]


def _golden(facts: ServedFacts) -> Check:
    if facts.golden is None:
        return finding("golden requests", Verdict.PROMOTE, "reproduced")
    return finding("golden requests", Verdict.HOLD, facts.golden)


def _recall(facts: ServedFacts) -> Check:
    outcome = Verdict.PROMOTE if facts.index_recall >= facts.min_recall else Verdict.HOLD
    detail = (
        f"finds {facts.index_recall:.1%} of the nearest items; at least {facts.min_recall:.1%} is required"
    )
    return finding("its own index", outcome, detail, recall=facts.index_recall)


def _size(challenger: ServedFacts, champion: ServedFacts, config: GateConfig) -> Check:
    allowed = config.max_size_ratio * champion.size_bytes
    outcome = Verdict.PROMOTE if challenger.size_bytes <= allowed else Verdict.HOLD
    detail = f"{challenger.size_bytes:,} bytes, at most {allowed:,.0f} are allowed"
    return finding("size of the bundle", outcome, detail, bytes=challenger.size_bytes, allowed=allowed)


def _time(challenger: ServedFacts, champion: ServedFacts, config: GateConfig) -> Check:
    allowed = max(LEAST_MS, config.max_time_ratio * champion.request_ms)
    outcome = Verdict.PROMOTE if challenger.request_ms <= allowed else Verdict.HOLD
    detail = f"{challenger.request_ms:.2f} ms of processor time, at most {allowed:.2f} are allowed"
    return finding("time of a request", outcome, detail, ms=challenger.request_ms, allowed=allowed)
