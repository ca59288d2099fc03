"""Off-policy values are of the score that is served: what a server's own engine logged is computed again."""

import dataclasses
import shutil
from datetime import date

import numpy as np
import polars as pl
import pytest

from features.build import build_snapshots
from features.sources.journal import ingest_journal
from features.store import Event
from recsys.config import ExecutionConfig
from recsys.journal import FOLDER, MAGIC, encode
from recsys.log import InteractionLog
from recsys.source_terms import NO_SOURCES, SourceTerms
from recsys.stages import Stages
from serving.journal_rows import FeedbackEvent, answer_rows, feedback_rows
from serving.pages.list_state import ListState
from serving.request import Deadline, RankRequest
from training.evaluation import choices as choices_module
from training.evaluation.choices import read_choices
from training.evaluation.off_policy import Asked, compare_off_policy, discount
from training.predict import BundlePredictor
from training.report.off_policy import compare_lists_off_policy
from training.report.side import Side

LAST, PLACES = 5, 5
LAG_S = 30
DAY = date(2026, 1, 30)
EVERY = SourceTerms(
    heads=0.7,
    retrieval=0.2,
    item_item=0.5,
    repeat=0.3,
    popular=0.2,
    item_bias=0.3,
    newcomer=0.2,
    item_item_days=2.0,
)
POLICY = {"name": "epsilon_plackett_luce", "epsilon": 0.6, "temperature": 0.5}
LEARN = {"repeat": "learn", "repeat_kinds": ("click",), "max_repeats": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Served:
    """A day that a bundle served, and its log."""

    predictor: BundlePredictor
    log: InteractionLog
    days: object
    scores: dict
    """Request -> candidate -> score, as the engine gave it."""

    def side(self, predictor=None):
        return Side(predictor=predictor or self.predictor, days=self.days, log=self.log)

    def read(self):
        return read_choices(self.predictor, self.log, self.days, [LAST])

    def asked(self, fusion, choices=None):
        of = self.read().choices if choices is None else choices
        return Asked(choices=of, fusion=fusion, version=self.predictor.bundle.version)


@pytest.fixture(scope="module")
def served(predictor, shop_log, shop_chain, changed, engine_of, tmp_path_factory):
    """Answer the last day's requests anew; what users do on the way is in the store at their next request."""
    mine = changed(predictor, sources=EVERY, policy=LEARN, features={"ingestion_lag": LAG_S})
    asked = shop_log.read("requests", DAY).sort("requested_at")
    log = InteractionLog(shutil.copytree(shop_log.root, tmp_path_factory.mktemp("served") / "log"))
    for table in ("requests", "impressions", "feedback"):
        shutil.rmtree(log.root / table / f"date={DAY}")
    events, scores, records, rng = {}, {}, [], np.random.default_rng(0)
    engine = engine_of(mine, shop_chain, LAST, events=events, policy=POLICY, candidate_log_share=1.0)
    for number, row in enumerate(asked.iter_rows(named=True)):
        at_ms = int(row["requested_at"].timestamp() * 1000)
        request = RankRequest(
            request_id=row["request_id"],
            user_id=row["user_id"],
            context={"device": row["context_device"]},
            head_weights={"click": 3.0, "source:popular": 1.0} if number % 7 == 3 else {},
        )
        state = ListState.begin(number)  # a seed in the request would leave its list without a propensity
        scored = engine.score_candidates(request, at_ms, Deadline.after(60.0), state=state)
        page = scored.page(PLACES)
        assert page.degradation == ()
        scores[row["request_id"]] = dict(zip(scored.item_ids, scored.policy_input.scores, strict=True))
        done = list(_feedback(page, row, at_ms, rng))
        for e in done:
            event = Event(**{name: getattr(e, name) for name in Event._fields})
            events.setdefault(e.user_id, []).append(event)
        records.append(encode(at_ms, [*answer_rows(request, page), *([feedback_rows(done)] if done else [])]))
    (log.root / FOLDER).mkdir()
    (log.root / FOLDER / "1-server-0.journal").write_bytes(MAGIC + b"".join(records))
    ingest_journal(log, "UTC")
    stages = Stages(tmp_path_factory.mktemp("stages"))
    days = build_snapshots(log, DAY, mine.bundle.config, stages, execution=ExecutionConfig())
    return Served(predictor=mine, log=log, days=days, scores=scores)


def _feedback(page, row, at_ms, rng):
    """A third is clicked, some seconds later; some of that is bought, and some of it given back."""
    for item in page.items:
        kinds = ["click", "purchase", "refund"][: int(rng.choice([0, 1, 2, 3], p=[0.6, 0.2, 0.1, 0.1]))]
        for step, kind in enumerate(kinds, 1):
            at = at_ms + int(rng.integers(1_000, 1_000 * 3 * LAG_S)) * step
            impression = f"{page.request_id}:{item.position}"
            yield FeedbackEvent(
                feedback_id=f"{impression}:{kind}",
                impression_id=impression,
                user_id=row["user_id"],
                item_id=item.item_id,
                kind=kind,
                value=None,
                occurred_at_ms=at,
                received_at_ms=at,
            )


def test_a_candidate_has_the_score_that_the_server_gave_it(served):
    """By every source, with the clicks of the day before the request, and with the request's own weights."""
    read = served.read()
    assert read.left_out == {}
    assert len(read.choices) == len(served.scores) > 80
    fusion = served.predictor.bundle.manifest.fusion
    for choice in read.choices:
        expected = [served.scores[choice.request_id][item] for item in choice.item_ids]
        np.testing.assert_allclose(choice.score(fusion), expected, atol=1e-4, err_msg=choice.request_id)
    assert {name for c in read.choices for name, v in c.sources.items() if v.any()} == set(EVERY.weights)
    assert any(c.head_weights for c in read.choices)
    assert any(c.repeats.any() for c in read.choices)


def test_a_bundles_own_lists_have_the_propensities_that_were_logged(served):
    own = served.asked(served.predictor.bundle.manifest.fusion)
    compared, notes = compare_off_policy(own, own, served.predictor.bundle.config.tasks, PLACES, seed=0)
    support = compared["click"].a.support
    known = [choice for choice in own.choices if not np.isnan(choice.labels["click"]).any()]
    assert support.lists == len(known) > 80
    assert support.effective == pytest.approx(support.lists, rel=1e-3)
    assert support.max_weight == pytest.approx(1.0, abs=0.01)
    clicks = [choice.labels["click"] @ discount(choice.position, PLACES) for choice in known]
    for name in ("ips", "snips", "rips", "snrips"):
        assert compared["click"].a.estimates[name].value == pytest.approx(np.mean(clicks), rel=1e-3), name
    size = len(own.choices)
    said = f"A made {size} of these lists itself: at 100% of their {PLACES * size} places"
    assert any(note.startswith(said) for note in notes), notes
    other = served.asked(own.fusion.with_sources(NO_SOURCES), own.choices)
    _, notes = compare_off_policy(other, own, served.predictor.bundle.config.tasks, PLACES, seed=0)
    assert not any(note.startswith("A made") and "100%" in note for note in notes), "the heads alone differ"


def test_bundles_that_differ_in_one_source_alone_have_different_values(served):
    bundle = served.predictor.bundle
    turned = dataclasses.replace(bundle, item_bias=bundle.item_bias.with_columns(-pl.col("bias")))
    sides = served.side(), served.side(BundlePredictor(turned))
    found = compare_lists_off_policy(*sides, bundle.config.tasks, DAY, DAY, seed=0, replicates=20)
    assert found.requests == len(served.scores)
    effects = found.by_task["click"].effects
    assert all(effects[name].difference != 0 for name in ("ips", "snrips", "dm", "cascade_dr")), effects
    assert found.by_task["click"].b.support.max_weight > 1.1


def test_what_cannot_be_scored_is_left_out_and_counted(served, monkeypatch):
    first = read_choices(served.predictor, served.log, served.days, [0])
    assert first.choices == []
    assert any("log's first day" in note for note in first.notes())
    assert sum(first.left_out.values()) > 0
    sets = choices_module._candidate_sets

    def of_others(*arguments):
        found = sets(*arguments)
        one, two, three, four, *_ = found
        pinned = {0: found[four].item_ids[0], 40: "of no catalogue"}
        more = pl.concat([found[three].item_ids, pl.Series(["of no catalogue"])])
        return {
            **found,
            one: dataclasses.replace(found[one], head_weights={"like": 1.0}),
            two: dataclasses.replace(found[two], item_ids=pl.Series(["of no catalogue", "nor this"])),
            three: dataclasses.replace(found[three], item_ids=more),
            four: dataclasses.replace(found[four], pins=pinned),
        }

    monkeypatch.setattr(choices_module, "_candidate_sets", of_others)
    read = served.read()
    assert sorted(read.left_out.values()) == [1, 1]
    assert len(read.choices) == len(served.scores) - 2
    assert [choice.unlisted for choice in read.choices if choice.unlisted] == [1]
    assert [(choice.pins, choice.unpinned) for choice in read.choices if choice.unpinned] == [({0: 0}, 1)]
    candidates, pins = read.notes()[-2:]
    assert candidates.startswith("1 requests have candidates that the day's catalogue lacks")
    assert pins.startswith("1 requests have pins whose item the day's catalogue lacks")
