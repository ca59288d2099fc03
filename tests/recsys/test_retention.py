"""Which versions stay in a runs folder, and why."""

from datetime import UTC, date, datetime

import pytest

from recsys.errors import RegistryError
from recsys.records import NightRecord, Verdict
from recsys.registry import Registry
from recsys.retention import pin, pins, unpin, why_kept


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path)


@pytest.fixture
def made(registry):
    """Give what makes a version: made("2026-01-05-refit", evaluated=...)."""

    def make(version, verdict=Verdict.PROMOTE, evaluated=None, champion=None, known_until=None):
        folder = registry.path(version)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        registry.write_record(
            NightRecord(
                version=version, night=date.fromisoformat(version[:10]), verdict=verdict, champion=champion,
                evaluated=evaluated or version, cold_since=date(2026, 1, 1), start="cold",
                known_until=known_until, trained_until={}, lags={}, checks=(), findings={}, accepted=(),
                seconds=0.0,
            )
        )  # fmt: skip
        return version

    return make


def test_newest_nights_and_newest_promoted_ones_stay(registry, made):
    promoted = [made(f"2026-01-0{day}-p") for day in (1, 2, 3)]
    held = [made(f"2026-01-0{day}-h", Verdict.HOLD) for day in (4, 5, 6)]
    kept = why_kept(registry, 2)
    assert sorted(kept) == [*promoted[1:], *held[1:]]
    assert kept[held[2]] == "of one of the newest 2 nights"


def test_what_is_live_loaded_pinned_or_the_anchor_stays(registry, made):
    old = [made(f"2026-01-0{day}-x") for day in range(1, 7)]
    newest = made("2026-01-09-x")
    (registry.folder / "CURRENT").write_text(f"{old[0]}\n")
    registry.write_lease("server", old[1], loaded=[old[2]])
    pin(registry, old[3], "before the sale")
    kept = why_kept(registry, 1, anchors=[old[4]])
    assert kept == {
        old[0]: "live",
        old[1]: "a server has loaded it",
        old[2]: "a server has loaded it",
        old[3]: "pinned: before the sale",
        old[4]: "the anchor, or one to come",
        newest: "of one of the newest 1 nights",
    }
    unpin(registry, old[3])
    assert (pins(registry), old[3] in why_kept(registry, 1)) == ({}, False)


def test_what_a_version_came_from_stays_with_it(registry, made):
    evaluated = made("2026-01-01-evaluated")
    refitted = made("2026-01-01-refitted", evaluated=evaluated)
    at = datetime(2026, 1, 2, 12, tzinfo=UTC)
    update = made("2026-01-01-update", evaluated=evaluated, champion=refitted, known_until=at)
    made("2026-01-02-x"), made("2026-01-03-x")
    registry.write_lease("server", update)
    kept = why_kept(registry, 1)
    assert sorted(kept) == [evaluated, refitted, update, "2026-01-03-x"]
    assert kept[refitted] == f"{update} came from it"


def test_a_version_that_a_night_did_not_finish_counts_by_its_day(registry, made):
    made("2026-01-03-x")
    for version in ("2026-01-02-torn", "2026-01-03-torn"):
        registry.path(version).mkdir(parents=True)
        (registry.path(version) / "manifest.json").write_text("{}")
    assert sorted(why_kept(registry, 1)) == ["2026-01-03-torn", "2026-01-03-x"]


def test_nothing_is_kept_on_a_guess(registry, made):
    made("2026-01-03-x")
    (registry.folder / "leases").mkdir()
    (registry.folder / "leases" / "torn.json").write_text("{")
    with pytest.raises(RegistryError, match=r"torn.json holds no Lease"):
        why_kept(registry, 1)


def test_only_what_is_there_is_pinned_and_unpinned(registry, made):
    pin(registry, made("2026-01-03-x"), "reason")
    with pytest.raises(RegistryError, match="no bundle 'v9'"):
        pin(registry, "v9", "reason")
    with pytest.raises(RegistryError, match="v9 is not pinned; pinned are: 2026-01-03-x"):
        unpin(registry, "v9")
