"""The night as a whole: what it leaves behind, run again, held, refused, killed."""

import dataclasses
import errno
import json
import shutil
from datetime import date, timedelta
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

from features.build import build_snapshots
from recsys import cli, index, index_recall
from recsys.bundle import load_bundle
from recsys.calibration import is_fitted, smoothed_targets
from recsys.encoding import EncoderState
from recsys.errors import BundleError, ConfigError, DataError, RegistryError
from recsys.index_recall import NUM_QUERIES
from recsys.log import InteractionLog
from recsys.manifest import read_manifest
from recsys.metrics.columns import Rows
from recsys.records import Activation, Verdict
from recsys.registry import Registry
from recsys.snapshot import DaySnapshot
from recsys.stages import read_manifest as read_stage
from recsys.user_key import FILE, user_key_of, write_user_key
from recsys.vocabulary import Vocabulary
from training.console import print_night
from training.errors import DivergedError
from training.evaluation.evaluate import score_rows
from training.host_choice import HostChoice
from training.night import bundles, verdict, work
from training.night.explain import explain_night
from training.night.extent import Part
from training.night.night import Night
from training.night.nights import train_one
from training.night.plan import plan_night
from training.night.run import check_names, run_night
from training.predict import BundlePredictor
from training.publish import _Probe
from training.train import train
from training.trainer.saver import Saver
from training.warm_start import Previous

DAY = date(2026, 1, 29)
WRITERS = ("tensorboard",) if find_spec("tensorboard") else ()
"""CI has it (`dev`); where it is absent the night is checked without."""


@pytest.fixture(scope="module")
def first_night(shop_log, make_config, tmp_path_factory):
    # A shop this small cannot be evaluated: every head is reported and nothing holds the night.

    config = make_config(gate={"min_rows": 100_000})
    night = Night(config=config, log=shop_log, runs=tmp_path_factory.mktemp("runs"), date=DAY)
    return night, run_night(night)


@pytest.fixture
def built(first_night, tmp_path):
    """Give a runs folder that has the first night's days and its key of users, and nothing else."""
    features = "stages/features"
    shutil.copytree(first_night[0].runs / features, tmp_path / "runs" / features)
    shutil.copy(first_night[0].runs / FILE, tmp_path / "runs")
    return tmp_path / "runs"


def test_the_first_night_goes_live_refitted(first_night):
    night, result = first_night
    assert result.verdict is Verdict.PROMOTE
    assert Registry(night.runs).current() == result.version != result.evaluated
    record = night.registry.record(result.version)
    assert record.index.kind == read_manifest(night.registry.path(result.version)).index["kind"] == "exact"
    assert (record.evaluated, record.champion) == (result.evaluated, None)
    assert [(r.by, r.verdict) for r in record.rulings] == [
        ("gate", Verdict.PROMOTE), ("activation", Verdict.PROMOTE)
    ]  # fmt: skip
    assert [*record.lineage.days] == [f"2026-01-{day}" for day in range(25, 30)]
    assert record.lineage.days["2026-01-29"].rows["impressions"] > 100
    assert record.lineage.libraries["polars"]
    assert record.page == "reports/night-2026-01-29.html"
    assert result.page == night.runs / record.page
    page = result.page.read_text()
    assert page.count("<svg") >= 7, "rows, rates, new ids, quarantine, quality and the verdicts"
    assert f"{result.version} is live" in page
    assert record.lineage.seconds["train"] > 0
    assert set(record.beside["click AUC inside lists"]) == {"model", "linear"}
    # The night of the 29th has trained up to the 27th; ratings, whose lag is one day, up to the 26th.
    assert record.trained_until == {
        "click": date(2026, 1, 27), "purchase": date(2026, 1, 27), "rating": date(2026, 1, 26)
    }  # fmt: skip
    assert (record.gated["click"], record.gated["rating"]) == (date(2026, 1, 29), date(2026, 1, 28))


def test_a_refit_is_calibrated_anew_in_its_level_alone(first_night):
    night, result = first_night
    evaluated, live = (
        read_manifest(night.registry.path(version)).calibration["click"]
        for version in (result.evaluated, result.version)
    )
    assert live == evaluated.model_copy(update={"b": live.b})
    assert live.b != evaluated.b


def test_what_a_night_has_learned_names_no_user(first_night):
    """Of bundles and of the weights that they are made of: every column of text in every table."""
    night, result = first_night
    days = build_snapshots(night.log, DAY, night.config, night.stages)
    users = set(days[-1].table("users")["user_id"])
    known = load_bundle(night.registry.path(result.version)).encoder.vocabularies["user_id"]
    numbered = [user for user in users if known.encode_one(user) >= known.num_reserved]
    assert len(numbered) == len(known.ids) > 10
    files = [
        *night.runs.glob("bundles/*/**/*.parquet"),
        *night.runs.glob("stages/train/*/**/*.parquet"),
        *night.runs.glob("stages/refit/*/**/*.parquet"),
    ]
    assert sum(file.name == "user_id.parquet" for file in files) == 4
    for file in files:
        table = pl.read_parquet(file)
        assert not [user for user in users if f'"{user}"' in table.write_json()], file


def test_users_of_a_bundle_of_before_keys_keep_their_numbers(first_night, tmp_path):
    night, result = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    config, registry = night.config, Registry(runs)
    hashed = load_bundle(registry.path(result.evaluated))
    users = build_snapshots(night.log, DAY, config, night.stages)[-1].table("users")["user_id"]
    key = user_key_of(runs)
    clear = {key.hash_one(user): user for user in users}
    old = Vocabulary(
        ids=tuple(clear[listed] for listed in hashed.encoder.vocabularies["user_id"].ids),
        hash_buckets=config.features.hash_buckets,
    )
    state = dataclasses.replace(hashed.encoder, vocabularies=hashed.encoder.vocabularies | {"user_id": old})
    (tmp_path / "old").mkdir()
    state.save(tmp_path / "old")
    loaded = EncoderState.load(tmp_path / "old")
    assert loaded.vocabularies["user_id"] == old
    mine = dataclasses.replace(night, runs=runs)
    days = build_snapshots(night.log, date(2026, 1, 30), config, mine.stages)
    before = Previous(
        **{f.name: getattr(Previous.of(hashed, config), f.name) for f in dataclasses.fields(Previous)}
        | {"state": loaded, "fitted": loaded}
    )
    plan = plan_night(days, config, None)
    trained = train(days, plan.train, config, before, 1, user_key=key)
    now = trained.state.vocabularies["user_id"]
    assert now.key == key
    assert now.ids[: len(old.ids)] == hashed.encoder.vocabularies["user_id"].ids
    np.testing.assert_array_equal(now.encode(pl.Series(old.ids)), old.encode(pl.Series(old.ids)))


def test_a_night_without_its_key_says_which_file_it_lacks(first_night, tmp_path):
    night, result = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    (runs / FILE).unlink()
    said = (
        rf"has users hashed with the key \w+, and {runs / FILE} is not there; copy {FILE} there from the runs"
    )
    with pytest.raises(BundleError, match=said):
        load_bundle(Registry(runs).path(result.version))
    for day in (DAY, date(2026, 1, 30)):  # the first night goes on from no bundle
        with pytest.raises(BundleError, match=said) as failed:
            run_night(Night(config=night.config, log=night.log, runs=runs, date=day))
        assert "writes a damaged bundle again" not in str(failed.value), "it is sound"
    assert not (runs / FILE).exists(), "no other key is made in its place"


def test_a_refit_has_the_level_of_the_evaluated_day(first_night):
    """Not that of the calibration day, which it has learned as well and whose level was corrected before."""
    night, result = first_night
    days = build_snapshots(night.log, DAY, night.config, night.stages)
    plan = plan_night(days, night.config, None)
    predictor = BundlePredictor(load_bundle(night.registry.path(result.version)))
    missed = {}
    for day in (plan.calibrate["click"], plan.evaluate["click"]):
        rows = score_rows(predictor, days, {"click": [day]}).drop_nulls("label_click")
        label, prediction, weight = (
            rows[name].to_numpy().astype(np.float64) for name in ("label_click", "prediction_click", "weight")
        )
        seen = Rows(label=label, prediction=prediction, weight=weight)
        highest, lowest = smoothed_targets(seen)
        target = np.where(seen.label == 1, highest, lowest)
        missed[day] = abs(np.average(seen.prediction - target, weights=seen.weight))
    assert missed[plan.evaluate["click"]] < 1e-6 < 1e-3 < missed[plan.calibrate["click"]]


def test_a_night_run_again_does_nothing(first_night):
    night, result = first_night
    before = {p: p.stat().st_mtime_ns for p in (night.runs / "stages").rglob("manifest.json")}
    again = run_night(night)
    assert (again.version, again.verdict) == (result.version, result.verdict)
    assert {p: p.stat().st_mtime_ns for p in (night.runs / "stages").rglob("manifest.json")} == before
    assert len((night.runs / "registry" / "activations.jsonl").read_text().splitlines()) == 1


def test_a_version_that_was_rolled_back_is_held_by_its_own_night(first_night, tmp_path, capsys):
    night, result = first_night
    mine = dataclasses.replace(night, runs=shutil.copytree(night.runs, tmp_path / "runs"))
    registry = mine.registry
    rolled_back = Activation(version="older", previous=result.version, at=0.0, rollback=True)
    registry.activations.append(rolled_back)
    (registry.folder / "CURRENT").unlink()
    for _ in range(2):
        again = run_night(mine)
        assert (again.verdict, again.version, again.promoted, again.live) == (
            Verdict.HOLD, None, result.version, None
        )  # fmt: skip
        assert "was rolled back, and no night brings it back" in again.to_json()["reasons"][0]
    record = registry.record(result.version)
    assert (record.verdict, len(record.rulings)) == (Verdict.HOLD, 3), "a verdict is added once"
    print_night(again)
    said = " ".join(capsys.readouterr().out.split())
    now = "nothing is live (servers answer with the log's popular items)"
    assert f"2026-01-29: HOLD, it made {result.version}, {now}: {result.version} was rolled" in said


def test_a_verdict_that_changes_is_added_to_the_records_of_both_versions(first_night, make_config, tmp_path):
    night, result = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    config = make_config(gate={"min_rows": 20, "min_list_auc": 1.0})
    held = run_night(dataclasses.replace(night, runs=runs, config=config))
    assert (held.verdict, held.promoted, held.live) == (Verdict.HOLD, None, result.version)
    for version in (result.version, result.evaluated):
        record = Registry(runs).record(version)
        gates = [r.verdict for r in record.rulings if r.by == "gate"]
        assert (record.verdict, gates) == (Verdict.HOLD, [Verdict.PROMOTE, Verdict.HOLD])
        assert record.checks == held.decision.checks


def test_the_learning_stages_alone_give_the_evaluated_bundle(first_night, built):
    night, result = first_night
    only = train_one(night.config, night.log.root, built, DAY)
    assert only.version == result.evaluated
    assert (only.choice, only.rows) == (HostChoice(), 2840)
    registry = Registry(built)
    assert (registry.current(), registry.versions()) == (None, [only.version])
    assert only.to_json().keys() == {
        "date", "version", "precision", "processes", "tables", "rows", "losses", "seconds"
    }  # fmt: skip


class _Killed(Saver):
    """Saves after the third step and ends the training, as a kill does."""

    def after_step(self, progress):
        if progress.step == 2:
            self.save(progress.checkpoint())
            raise KeyboardInterrupt


def test_a_night_killed_in_training_goes_on_from_the_checkpoint(first_night, tmp_path, capsys):
    night, result = first_night
    training = night.config.training.model_copy(update={"writers": WRITERS})
    again = dataclasses.replace(
        night,
        runs=shutil.copytree(night.runs, tmp_path / "runs"),
        config=night.config.model_copy(update={"training": training}),
    )
    (done,) = (again.runs / "stages" / "train").iterdir()
    shutil.rmtree(done)
    kept = done.with_name(f".{done.name}.unfinished")
    days = build_snapshots(night.log, DAY, night.config, again.stages)
    periods = plan_night(days, night.config, None).train
    key = user_key_of(again.runs)
    with pytest.raises(KeyboardInterrupt):
        train(days, periods, night.config, None, 1, watchers=[_Killed(kept, 0, print)], user_key=key)
    assert run_night(again).version == result.version
    assert "goes on from step 3 (" in capsys.readouterr().err
    assert _weights_of(again) == _weights_of(night)
    assert list((again.runs / "stages" / "train").iterdir()) == [done], "the checkpoint is gone"
    if WRITERS:
        _check_curves(again, result, done)


def _check_curves(night, result, stage):
    """The run of the train stage has what it learned, what became of it, and the outcome once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_night(night)
    folder = night.runs / "tensorboard" / str(DAY) / f"train.{stage.name[:8]}"
    assert [f.name for f in folder.parent.iterdir()] == [folder.name], "the refit was not made again"
    found = EventAccumulator(str(folder)).Reload()
    last = len(json.loads((stage / "losses.json").read_text())) - 1
    assert [e.step for e in found.Scalars("loss/click")] == [last]
    (report,) = (night.runs / "stages" / "evaluate").glob("*/challenger.json")
    figures = json.loads(report.read_text())["heads"]["click"]["values"]
    (event,) = found.Scalars("auc_validation/click")
    assert (event.step, event.value) == (last, pytest.approx(figures["auc"]))
    (said,) = (e.tensor_proto.string_val[0].decode() for e in found.Tensors("outcome/text_summary"))
    assert f'bundle = "{result.evaluated}"' in said
    assert 'verdict = "PROMOTE"' in said


def _weights_of(night):
    return [path.read_bytes() for path in night.runs.glob("stages/train/*/weights.safetensors")]


def test_a_night_that_diverges_leaves_the_champion_live(first_night, tmp_path):
    night, result = first_night
    training = night.config.training.model_copy(update={"learning_rate": 1e30})
    following = dataclasses.replace(
        night,
        config=night.config.model_copy(update={"training": training}),
        runs=shutil.copytree(night.runs, tmp_path / "runs"),
        date=date(2026, 1, 30),
    )
    with pytest.raises(
        DivergedError, match=r"is not finite at step 1; .*/diverged/2026-01-30/step-000000001"
    ):
        run_night(following)
    assert Registry(following.runs).current() == result.version


def test_a_night_with_a_new_head_teaches_it_all_days_before_and_checks_it_like_a_first_one(
    first_night, make_config, tmp_path
):
    """And a night later a restart is due: it starts from scratch, and the gate compares all the same."""
    night, result = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    tasks = [t.model_dump(mode="json") for t in night.config.tasks[:2]]
    bought = {"name": "bought", "feedback": "purchase", "head": "binary", "window": "1h"}
    once = {"refit": False}  # what goes live is not looked at
    read = {"feature": True}
    config = make_config(
        task=[tasks[0], bought, tasks[1]], gate={"min_rows": 300}, training=once, item_item=read
    )
    mine = Night(config=config, log=night.log, runs=runs, date=date(2026, 1, 30))
    following = run_night(mine, stop_after="record")
    registry = Registry(runs)
    record = registry.require_record(following.evaluated)
    said = f"warm, from {result.evaluated}: new heads bought; dropped heads rating; new inputs "
    assert record.start.startswith(said)
    inputs = read_manifest(registry.path(following.evaluated)).inputs
    assert inputs["past_numbers"] == [["item_item_score", 1], ["item_item_place", 1]]
    assert record.trained_until["bought"] == record.trained_until["click"]
    assert record.cold_since == DAY
    (caught_up,) = (runs / "stages" / "catch_up").iterdir()
    (trained,) = (p for p in (runs / "stages" / "train").iterdir() if read_stage(p)["carried"] is not None)
    learned = [read_stage(stage)["rows"] for stage in (caught_up, trained)]
    counts = [night.log.read("impressions", d).height for d in night.log.days("impressions")]
    assert learned == [sum(counts[:3]), counts[3]]
    (checked,) = [
        c for c in following.decision.checks if c.name.startswith("bought") and "list_auc" in c.numbers
    ]
    assert "the floor is" in checked.detail
    assert any("champion" in c.detail for c in following.decision.checks if c.name.startswith("click"))

    config = make_config(gate={"min_rows": 100_000}, training={"cold_restart": 1, **once})
    mine = Night(config=config, log=night.log, runs=runs, date=date(2026, 1, 30))
    restarted = run_night(mine, stop_after="record")
    record = registry.require_record(restarted.evaluated)
    assert (record.start, record.cold_since) == ("cold: a restart was due", date(2026, 1, 30))
    assert restarted.decision.champion == result.evaluated
    assert read_manifest(registry.path(restarted.evaluated)).parent is None


def test_a_champion_without_a_head_of_the_config_is_no_rival(first_night, make_config, tmp_path):
    night, result = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    task = night.config.tasks[0].model_dump(mode="json") | {"name": "clicked"}
    config = make_config(task=[task], retrieval={"task": "clicked"}, gate={"min_rows": 300})
    mine = Night(config=config, log=night.log, runs=runs, date=date(2026, 1, 30))
    following = run_night(mine, stop_after="gate")
    assert following.decision.champion == result.evaluated
    assert [c for c in following.decision.checks if c.name.startswith("clicked")]
    assert not any("champion" in c.numbers for c in following.decision.checks)


def test_a_bundle_that_this_code_cannot_read_is_refused_before_features_are_built(first_night, tmp_path):
    night, _ = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    for path in (runs / "bundles").glob("*/manifest.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 1}))
    built = sorted((runs / "stages" / "features").iterdir())
    with pytest.raises(
        BundleError, match=r"29-\w+/manifest.json has schema version 1.*new runs folder.*or go back"
    ):
        run_night(Night(config=night.config, log=night.log, runs=runs, date=date(2026, 1, 30)))
    assert sorted((runs / "stages" / "features").iterdir()) == built


def test_a_head_without_a_label_holds_the_night_as_uncalibrated(shop_log, make_config, tmp_path):
    """Also the first night, with nothing live to compare with: nobody has ever liked anything here."""
    likes = {"name": "like", "feedback": "like", "head": "binary", "window": "1h", "space": "observed"}
    clicks = {"name": "click", "feedback": "click", "head": "binary", "window": "1h"}
    config = make_config(gate={"min_rows": 100_000}, task=[clicks, likes])
    result = run_night(Night(config=config, log=shop_log, runs=tmp_path / "runs", date=DAY))
    assert (result.verdict, result.version) == (Verdict.HOLD, None)
    (reason,) = result.decision.reasons
    assert reason.startswith("like calibration: uncalibrated: no label was known on its calibration day")


def test_a_night_that_stops_before_it_publishes_is_not_live(first_night, tmp_path):
    night, result = first_night
    unknown = shutil.ignore_patterns("registry", "store")
    mine = dataclasses.replace(night, runs=shutil.copytree(night.runs, tmp_path / "runs", ignore=unknown))
    assert run_night(mine, stop_after="curves").promoted == result.version
    assert mine.registry.current() is None
    assert not list(mine.runs.glob("store/base-*"))


def test_a_dry_run_of_real_stages(first_night, make_config, tmp_path):
    night, result = first_night

    def states():
        return {p: p.stat().st_mtime_ns for p in night.runs.rglob("*")}

    before = states()
    done = explain_night(night, Part()).stages
    assert {s.stage for s in done if s.does != "done"} == {
        "check_files",
        "record",
        "curves",
        "page",
        "collect",
    }
    assert next(s.why for s in done if s.stage == "publish") == f"{result.version} is live"
    config = make_config(gate={"min_rows": 100_000}, training={"seed": 7})
    changed = explain_night(dataclasses.replace(night, config=config), Part()).stages
    first = next(s for s in changed if s.does == "run" and s.stage not in ("check_files", "record"))
    assert first.stage == "choose"
    assert "config.training.seed (0, now 7)" in first.why
    following = explain_night(dataclasses.replace(night, date=date(2026, 1, 30)), Part()).stages
    assert following[2].why == "2026-01-30: there is no result of these inputs"
    assert states() == before


@pytest.mark.parametrize("after", [1, 400])
def test_a_dry_run_refuses_what_the_night_refuses(shop_log, first_night, tmp_path, after):
    """For too few days, and for a date that the log does not have."""
    day = shop_log.days("impressions")[0] + timedelta(days=after)
    night = Night(config=first_night[0].config, log=shop_log, runs=tmp_path / "runs", date=day)
    planned = explain_night(night, Part())
    assert not night.runs.exists()
    assert planned.stops
    with pytest.raises(DataError) as refused:
        run_night(night)
    assert planned.stages[-1].why == str(refused.value)


def test_the_exit_code_of_a_dry_run_is_that_of_the_night(shop_log, tmp_path, capsys):
    night = ["nightly", "--log", str(shop_log.root), "--runs", str(tmp_path / "runs"), "--dry-run"]
    assert cli.run([*night, "--date", "2031-01-01"]) == DataError.exit_code
    assert "check_files  stop 2031-01-01 has 0 usable impressions" in capsys.readouterr().out
    assert cli.run([*night, "--date", str(DAY)]) == 0


def test_a_night_without_impressions_is_refused(shop_log, first_night, tmp_path):
    night, _ = first_night
    root = shutil.copytree(shop_log.root, tmp_path / "log")
    shutil.rmtree(root / "impressions" / f"date={DAY}")
    empty = Night(config=night.config, log=InteractionLog(root), runs=tmp_path / "runs", date=DAY)
    with pytest.raises(DataError, match="2026-01-29 has 0 usable impressions"):
        run_night(empty)
    assert empty.registry.current() is None


def test_a_full_disk_publishes_nothing_and_the_next_run_goes_on(shop_log, first_night, built, monkeypatch):
    """Full in one stage after the other: each run goes on to the stage at which it fails."""
    night, result = first_night
    mine = Night(config=night.config, log=shop_log, runs=built, date=DAY)
    write = work.write_json
    for stage, name in (("train", "losses.json"), ("gate", "decision.json"), ("refit", "losses.json")):
        done = sorted((built / "stages").glob("*/*/manifest.json"))

        def full(path, value, name=name, stage=stage):
            if path.name == name and path.parent.parent.parent.name == stage:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            write(path, value)

        for module in (verdict, work):
            monkeypatch.setattr(module, "write_json", full)
        with pytest.raises(DataError, match=rf"stage {stage}: .*No space left on device"):
            run_night(mine)
        assert mine.registry.current() is None
        assert set(done) < set((built / "stages").glob("*/*/manifest.json")), "what was made is kept"
    for module in (verdict, work):
        monkeypatch.setattr(module, "write_json", write)
    assert run_night(mine).version == result.version


def test_a_damaged_bundle_heals_when_its_night_is_run_again(first_night, tmp_path):
    """The evaluated one, from the stages that are there; the next night says who can heal it."""
    night, result = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    mine = dataclasses.replace(night, runs=runs)
    weights = mine.registry.path(result.evaluated) / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    following = dataclasses.replace(mine, date=date(2026, 1, 30))
    with pytest.raises(
        BundleError, match=r"`recsys nightly --date 2026-01-29` writes a damaged bundle again"
    ):
        run_night(following)
    assert run_night(mine).version == result.version
    assert weights.read_bytes() == content


def test_ctrl_c_while_learning_leaves_nothing_half_made(shop_log, first_night, built, monkeypatch):
    night, result = first_night
    mine = Night(config=night.config, log=shop_log, runs=built, date=DAY)

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundles, "fit_calibration", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_night(mine)
    assert mine.registry.versions() == []
    monkeypatch.undo()
    assert run_night(mine).version == result.version


def test_a_held_night_that_a_wider_gate_promotes_is_recorded_as_promoted(first_night, make_config, tmp_path):
    night, _ = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    shutil.rmtree(runs / "registry")
    results = []
    for gate in ({"min_rows": 20, "min_list_auc": 1.0}, {"min_rows": 100_000}):
        config = make_config(gate=gate, training={"refit": False})
        mine = Night(config=config, log=night.log, runs=runs, date=DAY)
        results.append(run_night(mine))
        assert mine.registry.require_record(results[-1].evaluated).verdict is results[-1].verdict
    assert [r.verdict for r in results] == [Verdict.HOLD, Verdict.PROMOTE]
    assert mine.registry.current() == results[0].evaluated == results[1].evaluated


def test_an_index_that_finds_too_little_of_what_users_want_is_not_published(
    first_night, make_config, tmp_path, monkeypatch
):
    night, result = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    monkeypatch.setattr(index, "MIN_ITEMS", 16)
    monkeypatch.setattr(index, "_FEWEST", 1)
    monkeypatch.setattr(index_recall, "FACTORS", (1,))

    before = Registry(runs).versions()
    retrieval = {"exact_items": 0, "num_candidates": 3, "index_min_recall": 1.0}
    config = make_config(gate={"min_rows": 100_000}, retrieval=retrieval)
    with pytest.raises(BundleError, match=r"of the 3 nearest ones.*index_min_recall is 1: nothing was"):
        run_night(Night(config=config, log=night.log, runs=runs, date=DAY))
    assert Registry(runs).versions() == before
    assert Registry(runs).current() == result.version


def test_users_of_the_snapshot_ask_the_index_and_their_items_speak_for_others(first_night):
    night, result = first_night
    bundle = load_bundle(night.registry.path(result.version))
    (folder,) = (
        p.parent for p in (night.stages.root / "features").glob("*/manifest.json")
        if read_stage(p.parent)["day"] == str(DAY)
    )  # fmt: skip
    assert bundle.item_item.num_items == bundle.items.height
    assert (bundle.item_item.neighbours >= 0).any()
    weights = bundle.manifest.fusion.sources.weights
    assert set(weights) == {"item_bias", "item_item"}, "the shop says what it showed: by the rule"
    queries = _Probe(DaySnapshot(DAY, folder)).user_vectors(bundle)
    assert queries.shape == (NUM_QUERIES, bundle.index.embeddings_ID.shape[1])
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    assert (np.abs(queries[0] - bundle.index.embeddings_ID).max(axis=1) > 1e-3).all(), "a user is no item"


def test_two_nights_at_once_are_refused(first_night):
    night, _ = first_night
    with night.registry.locked("nightly"), pytest.raises(RegistryError, match="another process holds"):
        run_night(night)


@pytest.mark.parametrize(
    ("section", "value", "known"),
    [("model", {"trunk": {"name": "mmo"}}, "mmoe"), ("training", {"balancing": "x"}, "fixed"),
     ("store", {"url": "mongo://x"}, "sqlite")],
)  # fmt: skip
def test_unknown_names_are_refused_before_any_work(make_config, section, value, known):
    with pytest.raises(ConfigError, match=known):
        check_names(make_config(**{section: value}))


def test_the_night_after_a_closed_day_is_calibrated_on_the_day_before_it(shop_log, make_config, tmp_path):
    """The 28th has no rows: the 29th is calibrated on the 27th, and the 30th trains on that day."""
    log = InteractionLog(shutil.copytree(shop_log.root, tmp_path / "log"))
    closed = date(2026, 1, 28)
    for table in ("requests", "impressions", "feedback"):
        shutil.rmtree(log.root / table / f"date={closed}", ignore_errors=True)
    config = make_config(gate={"min_rows": 100_000}, validation={"severity": {"volume": "info"}})
    trained_until = []
    for day in (DAY, date(2026, 1, 30)):
        night = Night(config=config, log=log, runs=tmp_path / "runs", date=day)
        result = run_night(night)
        assert result.verdict is Verdict.PROMOTE, result.decision.reasons
        record = night.registry.require_record(result.evaluated)
        trained_until.append((record.trained_until["click"], record.trained_until["rating"]))
        manifest = read_manifest(night.registry.path(result.evaluated))
        assert all(is_fitted(calibrator) for calibrator in manifest.calibration.values())
    days = [date(2026, 1, n) for n in (25, 26, 27)]
    assert trained_until == [(days[1], days[0]), (days[2], days[1])]


def test_the_next_night_warm_starts_and_scores_rows_once_for_each_bundle(first_night, tmp_path, monkeypatch):
    """One forward pass a bundle and compared day: metrics and the gate read the same rows."""
    night, result = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    scored = []
    predictions = BundlePredictor.predictions

    def counted(self, encoded):
        scored.append((self.bundle.version, encoded.day))
        return predictions(self, encoded)

    monkeypatch.setattr(BundlePredictor, "predictions", counted)
    following = run_night(Night(config=night.config, log=night.log, runs=runs, date=date(2026, 1, 30)))
    evaluated_on = [date(2026, 1, 29), date(2026, 1, 30)]  # ratings, and orders of the day before
    versions = (
        following.evaluated,
        result.evaluated,
        following.promoted,
    )  # the last: the refit, before it is live
    assert scored == [(v, day) for v in versions for day in evaluated_on]
    assert following.decision.champion == result.evaluated
    assert "new inputs" not in {check.name for check in following.decision.checks}
    stages = [p for p in (runs / "stages" / "train").iterdir() if "tmp" not in p.name]
    assert len(stages) == 2
    assert not (runs / "stages" / "catch_up").exists(), "nothing came since"


def test_a_champion_is_measured_by_the_features_that_it_was_trained_with(first_night, make_config, tmp_path):
    """Tonight's config has dropped a window; the champion's predictions are those of an ordinary night."""
    night, result = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    following = dataclasses.replace(night, runs=runs, date=date(2026, 1, 30))
    same = build_snapshots(night.log, following.date, night.config, following.stages)
    predictor = BundlePredictor(load_bundle(night.registry.path(result.evaluated)))
    places = {task.name: [same.last] for task in night.config.tasks}
    expected = score_rows(predictor, same, places)
    config = make_config(gate={"min_rows": 100_000}, features={"window_days": [2]})
    assert night.config.features.window_days != config.features.window_days
    held = run_night(dataclasses.replace(following, config=config), stop_after="gate")
    (said,) = (check.detail for check in held.decision.checks if check.name == "new inputs")
    assert said.startswith("item_by_category__click_count_2, item_by_category__click_rate_2, ")
    assert " and 25 more: learned from 3 period(s) that the heads know already, where nothing else" in said
    (caught_up,) = (runs / "stages" / "catch_up").iterdir()
    counts = [night.log.read("impressions", d).height for d in night.log.days("impressions")]
    assert read_stage(caught_up)["rows"] == sum(counts[:3])
    (scores,) = (runs / "stages" / "evaluate").glob("*/champion.parquet")
    found = pl.read_parquet(scores).join(expected.select("impression_id"), on="impression_id", how="semi")
    assert found.height == expected.height
    for name in ("prediction_click", "list_prediction_click", "score"):
        np.testing.assert_allclose(
            found.sort("impression_id")[name], expected.sort("impression_id")[name], 1e-5
        )


def test_a_bundle_whose_score_is_turned_around_is_held(first_night, make_config, tmp_path):
    """Heads are no worse, and what is shown first is what others click least."""
    night, live = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")
    config = make_config(
        gate={"min_rows": 100, "margin": 9.0, "max_ece": 1.0},
        fusion={"weights": {"click": -1.0, "purchase": 0.0, "rating": 0.0}},
    )
    held = run_night(dataclasses.replace(night, config=config, runs=runs, date=date(2026, 1, 30)))
    assert held.verdict is not Verdict.PROMOTE, held.decision.checks
    assert Registry(runs).current() == live.version
    (order,) = (c for c in held.decision.checks if c.name == "click AUC inside lists of the served score")
    assert order.outcome is not Verdict.PROMOTE


def test_a_feature_retrains_and_a_port_reruns_nothing(first_night, make_config, tmp_path):
    """A real run: what `test_stages` shows on hashes."""
    night, result = first_night
    runs = shutil.copytree(night.runs, tmp_path / "runs")

    def stages():
        return {p.parent for p in (runs / "stages").glob("*/*/manifest.json")}

    def again(**sections):
        config = make_config(gate={"min_rows": 100_000}, **sections)
        return run_night(Night(config=config, log=night.log, runs=runs, date=DAY), stop_after="curves")

    before = stages()
    moved = again(
        serving={"listen": "0.0.0.0:9", "poll_s": 7.0}, execution={"shards": 2}, training={"threads": 2}
    )
    assert stages() == before
    assert moved.promoted == result.version
    features = [f.model_dump(mode="json") for f in night.config.attributes if f.name != "device"]
    changed = again(feature=features)
    assert {folder.parent.name for folder in stages() - before} == {
        "choose", "train", "bundle", "evaluate", "gate", "refit", "refit_bundle", "check_refit", "validate"
    }  # fmt: skip
    assert changed.promoted not in (result.version, None)


def test_hosts_that_differ_write_the_same_version(first_night, make_config, tmp_path):
    """Address, store, gate and `[execution]` are not the bundle's: its files are equal, byte by byte."""
    night, result = first_night
    config = make_config(
        gate={"min_rows": 100_000, "margin": 0.5},
        serving={"listen": "0.0.0.0:9", "admin_listen": "127.0.0.1:8"},
        store={"url": "redis://elsewhere:6379/0", "namespace": "other"},
        execution={"shards": 2, "workers": 2},
    )
    write_user_key(tmp_path / "runs", user_key_of(night.runs).secret)
    other = run_night(
        Night(config=config, log=night.log, runs=tmp_path / "runs", date=DAY), stop_after="curves"
    )
    assert (other.promoted, other.evaluated) == (result.version, result.evaluated)
    built = (tmp_path / "runs" / "stages" / "features").glob("*/manifest.json")
    assert {json.loads(path.read_text())["parts"] for path in built} == {2}
    scored = [
        [path.read_bytes() for path in runs.glob("stages/evaluate/*/challenger.parquet")]
        for runs in (night.runs, tmp_path / "runs")
    ]
    assert scored[0] == scored[1] != []
