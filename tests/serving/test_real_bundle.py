"""The server with a bundle that a night made, on the simulated shop's log: only the time is faked."""

import dataclasses
import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.sources.journal import ingest_journal
from features.store import open_store
from recsys.cli import run
from recsys.config import StoreConfig
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.manifest import OLDEST_READ, SCHEMA_VERSION, read_manifest
from recsys.manifest import version_of as bundle_version
from recsys.registry import Registry
from recsys.schema import with_free_columns
from serving.app import Server
from serving.client import AdminClient, RecsysClient
from serving.client_values import CallError, Feedback, ItemUpdate
from serving.loading import load_model

CONFIG = Path(__file__).with_name("tiny.toml")
DAY = date(2026, 1, 31)


def some_user(folder: Path) -> str:
    feedback = InteractionLog(folder / "log").read("feedback", date(2026, 1, 29))
    return str(feedback["user_id"].value_counts(sort=True)["user_id"][0])


def test_a_known_user_gets_a_list_with_sound_predictions(server, client, night) -> None:
    answer = client.recommend(some_user(night), 20, context={"device": "mobile"})
    assert answer.bundle_version == Registry(night / "runs").current()
    assert answer.degradation == ()
    assert len({item.item_id for item in answer.items}) == 20
    for item in answer.items:
        assert 0 < item.predictions["purchase"] <= item.predictions["click"] < 1
        assert 1 <= item.predictions["rating"] <= 5
        assert item.title
        assert item.reasons
    assert [i.score for i in answer.items] == sorted((i.score for i in answer.items), reverse=True)


def test_served_predictions_are_the_scorers_own(server, client, night, clock) -> None:
    """Two ways to the same numbers: over the wire in one batch of candidates, and item by item."""
    user = some_user(night)
    answer = client.recommend(user, 10, context={"device": "tv"})
    registry = Registry(night / "runs")
    version = registry.current()
    assert version is not None
    model = load_model(registry.path(version), open_store(StoreConfig(), night / "runs"))
    assert model.fusion == read_manifest(registry.path(version)).fusion
    inputs = model.features.user(user, clock.now_ms()).inputs
    context = model.features.context({"device": "tv"}, clock.now_ms())
    for item in answer.items:
        row = np.array([model.catalogue.row_of(item.item_id)])
        alone = model.scorer.predict(model.scorer.user_side(inputs), context, row)
        assert item.predictions == pytest.approx({task: float(v[0]) for task, v in alone.items()}, abs=1e-5)


def test_an_unknown_user_is_answered(client) -> None:
    answer = client.recommend("stranger", 10)
    assert len(answer.items) == 10
    assert answer.degradation == ()


def test_a_purchased_item_disappears_and_changes_the_ranking(server, client, night, clock) -> None:
    user = some_user(night)
    first = client.recommend(user, 10)
    bought = first.items[0]
    client.record_feedback([Feedback.of(bought, user, "click"), Feedback.of(bought, user, "purchase", 100.0)])
    clock.ms += 60_000  # past the ingestion lag
    second = client.recommend(user, 10)
    assert bought.item_id not in [item.item_id for item in second.items]
    assert [i.score for i in second.items] != [i.score for i in first.items]
    # Which items come first is this bundle's own affair; one like the bought item is among them all.
    everything = client.recommend(user, 100)
    assert any(bought.title in reason for item in everything.items for reason in item.reasons)


def test_similar_items_and_new_items(client) -> None:
    similar = client.recommend("stranger", 5, seed_item_id=client.recommend("stranger", 1).items[0].item_id)
    assert all(item.reasons[0].startswith("similar to ") for item in similar.items)
    assert client.upsert_items([ItemUpdate(item_id="brand-new", title="Brand new")]) == {}
    found = client.recommend("stranger", 200)
    assert "fresh" in {item.item_id: item for item in found.items}["brand-new"].sources
    ranked = client.rank("stranger", [similar.items[0].item_id, "brand-new", "unheard-of"])
    assert {item.item_id for item in ranked.items} == {similar.items[0].item_id, "brand-new"}
    assert ranked.missing_item_ids == ("unheard-of",)


def test_a_damaged_bundle_is_refused_and_the_old_one_stays(server, client) -> None:
    registry = Registry(server._options.runs)
    version = registry.current()
    assert version is not None
    damaged = registry.path(copy_version(registry, version))
    with (damaged / "weights.safetensors").open("r+b") as weights:
        weights.seek(1_000)
        weights.write(b"\xff")
    (registry.folder / "CURRENT").write_text(f"{damaged.name}\n")
    server.reloader.check()
    assert "restore the bundle" in (server.reloader.error or "")
    assert client.recommend("stranger").bundle_version == version


def make_older_version_live(registry: Registry) -> Path:
    """Make a copy of the live bundle with an older schema version live; return its manifest."""
    version = registry.current()
    assert version is not None
    older = registry.path("2026-01-29-0123456789ab")
    shutil.copytree(registry.path(version), older)
    manifest = json.loads((older / "manifest.json").read_text())
    manifest |= {"schema_version": OLDEST_READ - 1, "version": older.name}
    (older / "manifest.json").write_text(json.dumps(manifest))
    (registry.folder / "CURRENT").write_text(f"{older.name}\n")
    return older / "manifest.json"


def older_schema(manifest: Path) -> str:
    return (
        f"{manifest} has schema version {OLDEST_READ - 1}, "
        f"this code reads {OLDEST_READ} to {SCHEMA_VERSION}; "
        "run the night again, in a new runs folder, and serve from there, or go back to the release that "
        "wrote the bundle"
    )


def test_a_running_server_keeps_its_bundle_when_one_of_an_older_schema_goes_live(server, client) -> None:
    version = server.recommender.version
    manifest = make_older_version_live(Registry(server._options.runs))
    server.reloader.check()
    with AdminClient(f"127.0.0.1:{server.admin_port}") as admin:
        status = admin.status()
    assert status.reload_error == f"{manifest.parent.name} was not loaded: {older_schema(manifest)}"
    assert (status.bundle_version, status.current_version) == (version, manifest.parent.name)
    assert (status.device, status.index_device) == ("cpu", "cpu")
    assert client.recommend("stranger").bundle_version == version


def test_a_server_that_starts_on_a_bundle_of_an_older_schema_says_what_to_do(server) -> None:
    manifest = make_older_version_live(Registry(server._options.runs))
    starting = Server(server._options)
    starting.start()
    starting.stop(1.0)
    line = starting.bundle_line
    assert f"no bundle: the popular list answers ({manifest.parent.name} was not loaded: " in line
    assert older_schema(manifest) in line


def test_until_a_first_night_is_proved_the_popular_items_of_the_log_are_served(
    server, night, tmp_path, capsys
) -> None:
    """By a log that is too short for a night, and beside a bundle that the gate held."""
    short, held = tmp_path / "short", tmp_path / "copy"
    for table in ("impressions", "feedback", "users", "items"):
        for day in InteractionLog(night / "log").days(table)[:2]:
            for file in InteractionLog(night / "log").files(table, day):
                copy = short / "log" / file.relative_to(night / "log")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
    where = [f"--{name}={short / name}" for name in ("log", "runs")]
    assert run(["nightly", "--config", str(CONFIG), *where, "--date", "2026-01-27"]) == DataError.exit_code
    assert "needs 3 days with impressions" in capsys.readouterr().err
    (held / "runs" / "registry" / "CURRENT").unlink()
    for folder in (short, held):
        assert Registry(folder / "runs").current() is None
        log = InteractionLog(folder / "log")
        clicks = pl.concat([log.read("feedback", day) for day in log.days("feedback")])
        most = clicks.filter(pl.col("kind") == "click")["item_id"].value_counts(sort=True)
        fresh = Server(dataclasses.replace(server._options, log=folder / "log", runs=folder / "runs"))
        fresh.start()
        with RecsysClient(f"127.0.0.1:{fresh.port}") as client:
            answer = client.recommend("u000001", 5)
        fresh.stop(1.0)
        assert (answer.bundle_version, answer.degradation) == ("", ("NO_BUNDLE",))
        shown = most.filter(pl.col("item_id").is_in([item.item_id for item in answer.items]))["count"]
        assert shown.to_list() == most["count"][:5].to_list()


def test_the_journal_becomes_tables_that_a_night_can_read(server, client, night) -> None:
    user = some_user(night)
    answer = client.recommend(
        user, 10, context={"device": "mobile"}, experiment_assignments={"button": "red"}
    )
    client.record_feedback([Feedback.of(answer.items[2], user, "click")])
    client.upsert_items([ItemUpdate(item_id=answer.items[0].item_id, price=1)])
    log = InteractionLog(server._options.log)
    summary = ingest_journal(log, "UTC")
    assert summary.rows == {"feedback": 1, "impressions": 10, "items": 1, "requests": 1}
    for table in summary.rows:
        frame = log.read(table, DAY)
        with_free_columns(table, dict(frame.schema)).validate(frame)
    impressions = log.read("impressions", DAY)
    assert impressions["context_device"].to_list() == ["mobile"] * 10
    assert impressions["context_experiment_button"].to_list() == ["red"] * 10


def copy_version(registry: Registry, version: str) -> str:
    """Make another version of the same content, as if another night had come to the same weights."""
    manifest = read_manifest(registry.path(version))
    manifest = manifest.model_copy(update={"parent": version})
    manifest = manifest.model_copy(update={"version": bundle_version(manifest)})
    shutil.copytree(registry.path(version), registry.path(manifest.version))
    (registry.path(manifest.version) / "manifest.json").write_text(manifest.model_dump_json(indent=1))
    store = registry.runs / "store"
    shutil.copy(store / f"base-{version}.sqlite", store / f"base-{manifest.version}.sqlite")
    return manifest.version


def test_a_rollback_takes_effect_while_a_night_runs_and_without_a_restart(server, client, until) -> None:
    registry = Registry(server._options.runs)
    first = registry.current()
    assert first is not None
    second = copy_version(registry, first)
    registry.activate(second)
    until(lambda: client.recommend("stranger").bundle_version == second)
    with registry.locked("nightly", wait=False):
        assert run(["bundle", "rollback", "--config", str(CONFIG), "--runs", str(registry.runs)]) == 0
        until(lambda: client.recommend("stranger").bundle_version == first)


def test_a_later_version_that_bfloat16_misses_is_answered_in_float32_and_the_status_says_why(
    server, client, bfloat16_misses
) -> None:
    first = server.recommender.version
    second = copy_version(Registry(server._options.runs), first)
    with AdminClient(f"127.0.0.1:{server.admin_port}") as admin:
        assert admin.status().engines_refused == ""
        assert admin.activate(second)
        assert client.recommend("stranger").bundle_version == second
        status = admin.status()
        assert (status.engine, status.reload_error) == ("eager", "")
        assert status.engines_refused.startswith("bfloat16: golden request golden-000: predictions of ")
        (worker,) = status.workers
        assert (worker.engine, worker.engines_refused) == (status.engine, status.engines_refused)
        assert admin.rollback() == first
        assert admin.status().engines_refused == ""


def test_an_administrator_moves_the_pointer_and_the_server_follows(server, client) -> None:
    first = server.recommender.version
    second = copy_version(Registry(server._options.runs), first)
    with AdminClient(f"127.0.0.1:{server.admin_port}") as admin:
        assert set(admin.versions()) == {first, second}
        assert admin.activate(second, expected_current=first)
        answer = client.recommend("stranger")
        assert (answer.bundle_version, answer.degradation) == (second, ())
        assert admin.rollback() == first
        assert client.recommend("stranger").bundle_version == first
        status = admin.status()
        assert (status.bundle_version, status.current_version, status.reload_error) == (first, first, "")
        with pytest.raises(CallError, match="FAILED_PRECONDITION: no bundle 'nothing'"):
            admin.activate("nothing")
        with pytest.raises(CallError, match=f"FAILED_PRECONDITION: '{first}' is live, not 'another'"):
            admin.activate(second, expected_current="another")
        with pytest.raises(CallError, match="FAILED_PRECONDITION: nothing to roll back to"):
            admin.rollback()


def test_the_bench_measures_the_live_bundle(night, tmp_path) -> None:
    report = tmp_path / "bench.json"
    folders = ["--log", str(night / "log"), "--runs", str(night / "runs")]
    options = ["--clients", "1,2", "--seconds", "0.1", "--new-items", "120", "--json", str(report)]
    assert run(["bench", "serve", "--config", str(CONFIG), *folders, *options]) == 0
    found = json.loads(report.read_text())
    assert found["bundle_version"] == Registry(night / "runs").current()
    assert found["new_items"] == 120
    assert found["upsert_s"] > 0
    assert [load["clients"] for load in found["loads"]] == [1, 2]
    for load in found["loads"]:
        assert load["failed"] == 0
        assert load["calls"] >= load["clients"], "each asks at least once"
        assert 0 < load["p50_ms"] <= load["p99_ms"]
        assert set(load["stage_ms"]) == {"parse", "features", "retrieval", "scoring", "policy", "journal"}
    assert not (night / "log" / "journal").exists()


def test_the_bench_needs_a_bundle(night, tmp_path, capsys) -> None:
    folders = ["--log", str(night / "log"), "--runs", str(tmp_path / "runs")]
    assert run(["bench", "serve", "--config", str(CONFIG), *folders]) == 4
    assert "has no live bundle to measure; run `recsys nightly` first" in capsys.readouterr().err
