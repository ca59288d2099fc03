"""recsys tune fusion on a bundle: days it has not seen, files, and what is refused."""

import json
import shutil
import tomllib
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from recsys.bundle import load_bundle
from recsys.cli import run
from recsys.config import build_fusion
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.manifest import read_manifest
from recsys.settings import to_toml
from recsys.source_terms import SourceTerms
from training.evaluation.choices import read_choices
from training.predict import BundlePredictor
from training.tune.fusion.tune import _without_own_weights, unseen_days


@pytest.fixture(scope="module")
def runs(bundle_folder, tmp_path_factory):
    return shutil.copytree(bundle_folder.parent.parent, tmp_path_factory.mktemp("tune") / "runs")


@pytest.fixture
def argv(shop_log, runs, bundle_folder, tmp_path):
    where = ["--log", str(shop_log.root), "--runs", str(runs), "--bundle", bundle_folder.name]
    return ["tune", "fusion", *where, "--out", str(tmp_path / "out"), "--trials", "8", "--top", "3"]


def test_the_command_searches_days_after_the_training(argv, bundle_folder, config, tmp_path, capsys):
    (tmp_path / "c.toml").write_text(to_toml(config.model_dump(mode="json", by_alias=True)))
    assert run([*argv, "--config", str(tmp_path / "c.toml"), "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    night = read_manifest(bundle_folder).date
    assert report["days"][0] == "2026-01-28", (
        f"the evaluated bundle of {night} was trained until two days before"
    )
    assert report["days"][-1] == "2026-01-30"
    assert report["trials"] == 8
    knee = report["candidates"][0]
    assert set(knee["truth"]) == {"p_click", "p_purchase", "expected_rating"}
    assert any("NOT TRUSTWORTHY" in note for note in report["notes"]), "the tiny log supports little"
    assert any("overlaps calibration" in note for note in report["notes"])
    written = tomllib.loads((tmp_path / "out" / "fusion.toml").read_text())
    assert written["fusion"]["weights"].keys() == {"click", "purchase", "rating"}


def test_the_printed_form_names_the_files(argv, tmp_path, capsys):
    assert run(argv) == 0
    out = capsys.readouterr().out
    assert "knee: click" in out
    assert "[fusion.weights]" in out
    assert f"{tmp_path}/out/report.html" in out


def test_the_sources_part_stays_beside_the_searched_weights(
    argv, bundle_folder, make_config, tmp_path, monkeypatch, capsys
):
    bundle = load_bundle(bundle_folder)
    sources = SourceTerms(heads=0.5, item_item=2.0, popular=1.0)

    def searched(fusion, study):
        weighted = replace(bundle, manifest=bundle.manifest.model_copy(update={"fusion": fusion}))
        monkeypatch.setattr("training.tune.fusion.from_log.load_reproducible", lambda _path: weighted)
        assert run([*argv, "--trials", "2", "--storage", str(tmp_path / study), "--json", "-"]) == 0
        return json.loads(capsys.readouterr().out)

    own = bundle.manifest.fusion
    (tmp_path / "off.toml").write_text(
        to_toml(make_config(fusion={"sources": "off"}).model_dump(mode="json", by_alias=True))
    )
    with_sources, alone = searched(own.with_sources(sources), "with.db"), searched(own, "alone.db")
    assert any(
        "the sources' part of the score (item_item, popular)" in note for note in with_sources["notes"]
    )
    assert not any("sources' part" in note for note in alone["notes"])
    fusions = [
        c["fusion"] for c in (with_sources["current"], *with_sources["front"], *with_sources["candidates"])
    ]
    assert {SourceTerms(**f["sources"]) for f in fusions} == {sources}
    assert "sources" not in alone["current"]["fusion"]
    of = with_sources["candidates"][0], alone["candidates"][0]
    for values in ("effects", "truth"):
        now = [next(iter(c[values].values()))["a"] for c in of]
        assert now[0] != now[1], values
    dm = [c["off_policy"]["click"]["a"]["estimates"]["dm"]["value"] for c in of]
    assert dm[0] != dm[1]
    argv += ["--config", str(tmp_path / "off.toml")]
    off = searched(own.with_sources(sources), "off.db")
    assert off["current"]["fusion"] == alone["current"]["fusion"], "the next night gives none"
    assert off["current"]["found"] == alone["current"]["found"]


def test_requests_with_weights_of_their_own_are_not_tuned_on(bundle_folder, shop_log, shop_chain):
    read = read_choices(BundlePredictor(load_bundle(bundle_folder)), shop_log, shop_chain, [4])
    first, *others = read.choices
    mixed = replace(read, choices=[replace(first, head_weights={"click": 2.0}), *others])
    kept, notes = _without_own_weights(mixed)
    assert kept == others
    assert notes == [
        "1 requests with logged candidates are left out: the application sent weights of its own with them"
    ]


def test_a_log_without_feedback_is_refused(argv, shop_log, tmp_path, capsys):
    silent = shutil.copytree(shop_log.root, tmp_path / "log")
    shutil.rmtree(silent / "feedback")
    assert run([*argv, "--log", str(silent)]) == 3
    assert "no feedback in the log" in capsys.readouterr().err


def test_wrong_names_are_refused(argv, tmp_path, make_config, capsys):
    assert run([*argv, "--formula", "sum"]) == 2
    assert "known: additive, multiplicative" in capsys.readouterr().err
    tasks = [{"name": "like", "feedback": "click", "head": "binary", "window": "1h"}]
    other = make_config(task=tasks).model_dump(mode="json", by_alias=True)
    (tmp_path / "c.toml").write_text(to_toml(other))
    assert run([*argv, "--config", str(tmp_path / "c.toml")]) == 2
    assert "has the tasks like" in capsys.readouterr().err


def test_a_bundle_that_has_seen_everything_cannot_be_tuned(bundle_folder, shop_log, tmp_path):
    predictor = BundlePredictor(load_bundle(bundle_folder))
    early = InteractionLog(shutil.copytree(shop_log.root, tmp_path / "log"))
    for day in early.days("impressions")[3:]:
        shutil.rmtree(early.root / "impressions" / f"date={day}")
    with pytest.raises(DataError, match="no day is left to tune on"):
        unseen_days(predictor.bundle, None, early, 7)
    first, last = unseen_days(predictor.bundle, None, shop_log, 2)
    assert last - first == timedelta(days=1)


def test_logged_candidates_are_predicted_as_shown_items_are(bundle_folder, shop_log, shop_chain, config):
    """An item's prediction among the candidates is its prediction as an impression, history and all."""
    predictor = BundlePredictor(load_bundle(bundle_folder))
    choices = [
        choice for i in (4, 5) for choice in read_choices(predictor, shop_log, shop_chain, [i]).choices
    ]
    assert choices
    from training.evaluation.evaluate import score_rows

    rows = score_rows(predictor, shop_chain, {t.name: [4, 5] for t in config.tasks})
    known = {(r["request_id"], r["item_id"]): r for r in rows.iter_rows(named=True)}
    for choice in choices:
        for number in choice.shown:
            row = known[choice.request_id, choice.item_ids[int(number)]]
            for task in config.tasks:
                mine = choice.predictions[task.name][number]
                assert mine == pytest.approx(row[f"prediction_{task.name}"], abs=2e-5)
        assert (choice.propensity > 0).all()
    assert build_fusion(config.tasks, config.fusion) == predictor.bundle.manifest.fusion


def test_labels_do_not_depend_on_the_numbers_of_the_logs_rows(
    bundle_folder, shop_log, shop_chain, monkeypatch
):
    """A log with quarantined rows leaves numbers out; labels are found by the place of an encoded row."""
    predictor = BundlePredictor(load_bundle(bundle_folder))
    before = read_choices(predictor, shop_log, shop_chain, [4]).choices
    encoded = predictor.encode_day(shop_chain, 4, shop_chain.tasks)
    frame = encoded.frame.with_columns(pl.col("row").reverse())
    monkeypatch.setattr(predictor, "encode_day", lambda *_: replace(encoded, frame=frame))
    after = read_choices(predictor, shop_log, shop_chain, [4]).choices
    assert any(choice.labels["click"].any() for choice in before)
    for one, other in zip(before, after, strict=True):
        assert one.labels["click"].tolist() == other.labels["click"].tolist()
