"""evaluate: figures against sklearn, lists against the serving path, leaks, and nothing from later days."""

import dataclasses
import hashlib
import json
import shutil
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import (
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    roc_auc_score,
    root_mean_squared_error,
)

from features.build import build_snapshots
from recsys.cli import run
from recsys.errors import DataError
from recsys.log import InteractionLog, period_end
from recsys.manifest import FileEntry, read_manifest, version_of
from recsys.registry import Registry
from recsys.stages import Stages
from training import predict
from training.baselines.simple_systems import BINARY, REGRESSION
from training.data import scoring
from training.evaluation.audience import find_audience
from training.evaluation.evaluate import evaluate, find_audiences, heads_of, score_rows
from training.evaluation.head_metrics import head_metrics
from training.evaluation.list_metrics import mean_metrics, score_lists
from training.evaluation.lists import ranked_lists, top_places
from training.predict import BundlePredictor

LAST = 5


@pytest.fixture(scope="module")
def evaluated(config):
    return {task.name: [LAST - 1, LAST] for task in config.tasks}


@pytest.fixture(scope="module")
def rows(predictor, shop_chain, evaluated):
    return score_rows(predictor, shop_chain, evaluated)


@pytest.fixture(scope="module")
def report(predictor, shop_chain, evaluated):
    return evaluate(predictor, shop_chain, evaluated, max_users=None)


# --- rows and heads


def test_figures_do_not_depend_on_how_a_days_users_are_split(predictor, evaluated, rows, report, split_chain):
    assert split_chain[LAST].num_parts == 3
    found = score_rows(predictor, split_chain, evaluated).sort("impression_id")
    wanted = rows.sort("impression_id")
    for name in (c for c in rows.columns if c.startswith("prediction_")):
        np.testing.assert_allclose(found[name].to_numpy(), wanted[name].to_numpy(), rtol=1e-5, err_msg=name)
    lists = evaluate(predictor, split_chain, evaluated, max_users=None).ranking
    assert lists.values == pytest.approx(report.ranking.values)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_day_in_pieces_gives_the_same_figures_to_the_bit(
    predictor, shop_chain, split_chain, evaluated, parts, monkeypatch
):
    """In files, two batches at a time: rows, their order, and who gets which list."""
    monkeypatch.setattr(predict, "BATCH_SIZE", 32)
    days = shop_chain if parts == 1 else split_chain
    predictor, found = BundlePredictor(predictor.bundle), []
    for piece_rows in (100_000, 64):
        monkeypatch.setattr(scoring, "PIECE_ROWS", piece_rows)
        scored = score_rows(predictor, days, evaluated)
        found.append((scored, evaluate(predictor, days, evaluated, rows=scored, max_users=20, seed=3)))
    assert found[0][0].equals(found[1][0])
    assert found[0][0].height > 20 * 32
    assert found[0][1] == found[1][1]
    assert not list(days[LAST].path.parent.glob("recsys-*")), "no file is left"


def test_every_impression_of_the_evaluated_days_is_scored_once(rows, shop_chain):
    shown = pl.concat([shop_chain[i].table("examples") for i in (LAST - 1, LAST)])
    assert rows["impression_id"].to_list() == shown["impression_id"].to_list()
    assert rows["date"].unique().sort().to_list() == [shop_chain[LAST - 1].day, shop_chain[LAST].day]


def test_heads_are_what_sklearn_says(report, rows):
    for name, metrics in report.heads.items():
        known = rows.filter(pl.col(f"label_{name}").is_not_null())
        label, prediction = known[f"label_{name}"].to_numpy(), known[f"prediction_{name}"].to_numpy()
        assert metrics.rows == known.height
        if name == "rating":
            assert metrics.values["rmse"] == pytest.approx(
                root_mean_squared_error(label, prediction), rel=1e-5
            )
            assert metrics.values["mae"] == pytest.approx(mean_absolute_error(label, prediction), rel=1e-5)
        else:
            assert metrics.values["auc"] == pytest.approx(roc_auc_score(label, prediction), rel=1e-6)
            assert metrics.values["log_loss"] == pytest.approx(log_loss(label, prediction), rel=1e-5)
            assert metrics.values["brier"] == pytest.approx(brier_score_loss(label, prediction), rel=1e-5)
            assert sum(b.count for b in metrics.reliability) == metrics.rows


def test_a_child_is_measured_over_all_impressions(report, rows):
    """Not over the clicked ones: as many rows as impressions whose window has closed."""
    assert (
        report.heads["purchase"].rows == rows["label_purchase"].count() > 10 * rows["label_click"].sum() / 2
    )


def test_open_windows_are_left_out_and_not_counted_as_zero(rows, shop_chain):
    late = rows.filter(pl.col("shown_at") > shop_chain.as_of - timedelta(hours=1))
    assert late.height > 0
    assert late["label_click"].null_count() == late.height
    # A rating's window is a day: nothing of the last day is known yet.
    assert rows.filter(pl.col("date") == shop_chain[LAST].day)["label_rating"].count() == 0


def test_a_head_is_measured_on_its_own_periods_only(predictor, shop_chain):
    evaluated = {"click": [LAST], "purchase": [LAST], "rating": [LAST - 1]}
    rows = score_rows(predictor, shop_chain, evaluated)
    days = {
        name: rows.filter(pl.col(f"label_{name}").is_not_null())["date"].unique().to_list()
        for name in evaluated
    }
    assert days["click"] == [shop_chain[LAST].day]
    assert days["rating"] == [shop_chain[LAST - 1].day]


def test_sampled_rows_count_as_many_as_they_stand_for(config):
    rng = np.random.default_rng(0)
    label = (rng.random(400) < 0.3).astype(np.float32)
    prediction = np.clip(0.3 * label + 0.6 * rng.random(400), 0.01, 0.99)
    weight = np.where(label == 1, 1.0, 20.0)
    users = [f"u{i % 20}" for i in range(400)]
    lists = {"list_group": np.arange(400) // 10, "examination": 1.0}
    rows = pl.DataFrame({"user_id": users, "weight": weight, "label_click": label, "p": prediction, **lists})
    found = head_metrics(config.tasks[0], rows, "p")
    assert found.values["auc"] == pytest.approx(roc_auc_score(label, prediction, sample_weight=weight))
    assert found.values["log_loss"] == pytest.approx(log_loss(label, prediction, sample_weight=weight))
    assert found.mean_label == pytest.approx(np.average(label, weights=weight))
    assert found.rows == 400
    assert found.lists + found.lists_left_out == 40


def test_one_class_and_no_rows_give_no_made_up_figures(config):
    rows = pl.DataFrame(
        {
            "user_id": ["u", "u"],
            "weight": [1.0, 1.0],
            "list_group": [0, 0],
            "examination": [1.0, 1.0],
            "label_click": [0.0, 0.0],
            "p": [0.1, 0.2],
        }
    )
    one_class = head_metrics(config.tasks[0], rows, "p")
    undefined = {name for name, value in one_class.values.items() if value is None}
    assert undefined == {"auc", "list_auc", "normalised_entropy"}
    nothing = head_metrics(config.tasks[0], rows.with_columns(label_click=pl.lit(None, pl.Float32)), "p")
    assert (nothing.rows, nothing.values["auc"], nothing.values["log_loss"]) == (0, None, None)


def test_days_after_the_window_change_nothing(shop_log, shop_chain, config, predictor, tmp_path):
    """The fifth day, as known at its end, with and without a sixth day in the log."""
    evaluated = {task.name: [LAST - 1] for task in config.tasks}
    alone = build_snapshots(shop_log, shop_chain[LAST - 1].day, config, Stages(tmp_path))
    a = evaluate(predictor, alone, evaluated, max_users=10)
    b = evaluate(predictor, shop_chain.as_known_at(alone.as_of), evaluated, max_users=10)
    assert a == b


def test_by_day_adds_up_to_the_whole(report, rows, config):
    assert sum(heads["click"].rows for heads in report.by_day.values()) == report.heads["click"].rows
    for day, heads in report.by_day.items():
        assert heads == heads_of(rows.filter(pl.col("date") == day), config.tasks)


def test_nothing_labelled_is_an_error(predictor, shop_chain, evaluated):
    too_early = shop_chain.as_known_at(shop_chain.end_of(0))
    with pytest.raises(DataError, match="has a label"):
        evaluate(predictor, too_early, evaluated)


def test_the_report_has_the_shape_that_the_issue_fixes(report):
    said = json.loads(report.model_dump_json())
    assert {"list_auc", "auc", "log_loss", "ece"} <= set(said["heads"]["click"]["values"])
    assert {"rmse", "mae", "list_concordance"} == set(said["heads"]["rating"]["values"])
    assert {"rows", "users"} <= set(said["heads"]["click"])
    assert {"ndcg_at_10", "recall_at_50", "users"} <= {*said["ranking"], *said["ranking"]["values"]}
    assert {"lists", "lists_left_out"} <= set(said["heads"]["click"])
    assert said["list_group"] == "request"
    assert said["examination"] == {}, "the shop's own policy explores nothing"
    assert said["baselines"] == {}


def test_lists_are_counted_and_ordered_by_the_held_predictions(rows, config):
    click = config.tasks[0]
    backwards = rows.with_columns(list_prediction_click=-pl.col("prediction_click"))
    found, other = (head_metrics(click, r, "prediction_click") for r in (rows, backwards))
    assert other.values["list_auc"] == pytest.approx(1 - found.values["list_auc"])
    assert other.values["auc"] == found.values["auc"]
    of_list = rows.drop_nulls(["label_click", "list_group"]).group_by("list_group")
    kinds = of_list.agg(pl.col("label_click").n_unique())["label_click"]
    assert (found.lists, found.lists_left_out) == ((kinds == 2).sum(), (kinds == 1).sum())


# --- lists


@pytest.fixture(scope="module")
def audience(shop_chain, config):
    return find_audience(shop_chain, LAST, config, max_users=None, seed=0)


def test_the_audience_has_a_past_and_wants_something(audience, shop_chain, rows):
    today = rows.filter(pl.col("date") == shop_chain[LAST].day)
    clicked = set(today.filter(pl.col("label_click") == 1)["user_id"])
    earlier = set(pl.concat([s.table("feedback") for s in shop_chain[:LAST]])["user_id"])
    assert set(audience.requests["user_id"]) == clicked & earlier
    for u, user in enumerate(audience.requests["user_id"]):
        wanted = today.filter(pl.col("user_id") == user, pl.col("label_click") == 1)["item_id"].unique()
        codes = audience.codes[audience.offsets[u] : audience.offsets[u + 1]]
        assert set(audience.catalogue["item_id"].gather(codes)) == set(wanted)


def test_the_audience_knows_nothing_of_its_own_day(audience, shop_chain):
    begun = period_end(shop_chain[LAST - 1].day, "UTC")
    assert audience.opening.table("events")["received_at"].max() < begun
    first = shop_chain[LAST].table("examples").group_by("user_id").agg(pl.col("shown_at").min())
    assert audience.requests.join(first, on=["user_id", "shown_at"]).height == audience.num_users


def test_a_seeded_choice_of_users_repeats(shop_chain, config):
    evaluated = {task.name: [LAST] for task in config.tasks}

    def users(max_users, seed):
        found = find_audiences(config, shop_chain, evaluated, max_users=max_users, seed=seed)
        return found[0].requests["user_id"].to_list()

    assert len(users(5, 0)) == 5
    assert users(5, 0) == users(5, 0) != users(5, 1)
    assert set(users(5, 0)) < set(users(None, 0))


def test_the_first_day_of_a_log_has_no_audience(shop_chain, config):
    evaluated = {task.name: [0] for task in config.tasks}
    assert find_audiences(config, shop_chain, evaluated, max_users=None, seed=0) == []


def test_lists_hold_available_unseen_items_once(audience, predictor, shop_chain):
    lists = ranked_lists(predictor, audience)
    bought = shop_chain[LAST - 1].table("tail").filter(pl.col("kind") == "purchase")
    assert not audience.available.all(), "the tiny shop withdraws items"
    for u, user in enumerate(audience.requests["user_id"]):
        retrieved = lists.retrieved[u][lists.retrieved[u] >= 0]
        assert len(set(retrieved)) == retrieved.size
        assert audience.available[retrieved].all()
        items = set(audience.catalogue["item_id"].gather(retrieved))
        assert not items & set(bought.filter(pl.col("user_id") == user)["item_id"])
        assert set(lists.ranked[u]) <= set(lists.candidates[u])


def test_top_places_orders_and_pads():
    scores = np.array([[0.1, 0.9, 0.5, 0.9], [1.0, 2.0, 3.0, 4.0]])
    allowed = np.array([[True, True, True, True], [True, False, False, False]])
    assert top_places(scores, allowed, 3).tolist() == [[1, 3, 2], [0, -1, -1]]
    assert top_places(scores, allowed, 6).tolist() == [[1, 3, 2, 0, -1, -1], [0, -1, -1, -1, -1, -1]]


def test_a_users_days_are_averaged_before_the_users(audience, predictor):
    scored = score_lists(audience, ranked_lists(predictor, audience))
    name = scored.values["user_id"][0]
    again = dataclasses.replace(
        scored,
        values=scored.values.head(1).with_columns(date=pl.lit(date(2026, 1, 31)), ndcg_at_10=pl.lit(1.0)),
    )
    found = mean_metrics([scored, again])
    means = scored.values["ndcg_at_10"].to_list()
    means[0] = (means[0] + 1.0) / 2
    assert found.values["ndcg_at_10"] == pytest.approx(np.mean(means)), name
    assert (found.users, found.lists) == (audience.num_users, audience.num_users + 1)


# --- the command


@pytest.fixture(scope="module")
def runs(bundle_folder):
    return bundle_folder.parent.parent


def test_evaluate_command_writes_the_report(runs, bundle_folder, shop_log, tmp_path, capsys):
    out = tmp_path / "e.json"
    days = ["--from", "2026-01-30", "--to", "2026-02-20"]
    where = [
        "--runs",
        str(runs),
        "--log",
        str(shop_log.root),
        "--bundle",
        bundle_folder.name,
        "--json",
        str(out),
    ]
    code = run(["evaluate", *where, *days, "--users", "5", "--no-baselines"])
    assert code == 0
    said = json.loads(out.read_text())
    assert said["version"] == bundle_folder.name
    assert said["days"] == ["2026-01-30"]
    # Beyond the log's last event silence is not a label.
    last = shop_log.read("feedback", max(shop_log.days("feedback")))["received_at"].max()
    assert datetime.fromisoformat(said["as_of"]) == last + timedelta(milliseconds=1)
    assert "recall@50" in capsys.readouterr().out


def test_evaluate_command_without_fitted_systems_has_the_counted_ones(
    runs, bundle_folder, shop_log, tmp_path
):
    out = tmp_path / "e.json"
    where = [
        "--runs",
        str(runs),
        "--log",
        str(shop_log.root),
        "--bundle",
        bundle_folder.name,
        "--json",
        str(out),
    ]
    days = ["--from", "2026-01-30", "--to", "2026-01-30"]
    assert run(["evaluate", *where, *days, "--users", "5", "--no-fitted"]) == 0
    assert sorted(json.loads(out.read_text())["baselines"]) == sorted((*BINARY, *REGRESSION))


def test_labels_may_come_from_days_after_those_scored(runs, bundle_folder, shop_log, tmp_path):
    where = [
        "--runs",
        str(runs),
        "--log",
        str(shop_log.root),
        "--bundle",
        bundle_folder.name,
        "--no-baselines",
    ]
    days = ["--from", "2026-01-29", "--to", "2026-01-29"]
    rated = []
    for more in ([], ["--labels-until", "2026-01-30"]):
        out = tmp_path / "e.json"
        assert run(["evaluate", *where, *days, "--json", str(out), "--users", "5", *more]) == 0
        said = json.loads(out.read_text())
        assert said["days"] == ["2026-01-29"]
        rated.append(said["heads"]["rating"]["rows"])
    assert rated[0] == 0 < rated[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--bundle", "2026-01-01-nothing"], 5, "no bundle"),
        ([], 5, "no bundle is live"),
        (["--from", "2026-03-01", "--to", "2026-03-02"], 3, "no impressions from"),
        (["--from", "2026-01-30", "--to", "2026-01-29"], 2, "swap them"),
        (["--from", "yesterday"], 2, "YYYY-MM-DD"),
        (["--labels-until", "2026-01-29"], 2, "before the last day scored"),
    ],
)
def test_bad_input_says_what_is_wrong(runs, bundle_folder, shop_log, capsys, arguments, code, said):
    base = {"--runs": str(runs), "--log": str(shop_log.root), "--from": "2026-01-30", "--to": "2026-01-30"}
    if arguments and arguments[0] != "--bundle":
        base["--bundle"] = bundle_folder.name
    base |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert run(["evaluate", *(part for pair in base.items() for part in pair)]) == code
    assert said in capsys.readouterr().err


def test_a_bundle_that_this_code_reads_differently_is_not_scored(bundle_folder, shop_log, tmp_path, capsys):
    """The manifest is made whole again: only the golden requests can tell."""
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "bundles" / bundle_folder.name
    shutil.copytree(bundle_folder, folder)
    golden = pl.read_parquet(folder / "golden.parquet")
    wrong = golden.with_columns(pl.col("prediction_click").list.eval(1 - pl.element()))
    wrong.write_parquet(folder / "golden.parquet")
    manifest = read_manifest(bundle_folder)
    said = (folder / "golden.parquet").read_bytes()
    entry = FileEntry(size=len(said), sha256=hashlib.sha256(said).hexdigest())
    changed = manifest.model_copy(update={"files": manifest.files | {"golden.parquet": entry}})
    changed = changed.model_copy(update={"version": version_of(changed)})
    (folder / "manifest.json").write_text(changed.model_dump_json(indent=1) + "\n")
    folder.rename(folder.with_name(changed.version))
    where = ["--runs", str(runs), "--log", str(shop_log.root), "--bundle", changed.version]
    assert run(["evaluate", *where, "--from", "2026-01-30", "--to", "2026-01-30"]) == 4
    assert "golden" in capsys.readouterr().err


def test_an_empty_log_is_an_error(runs, bundle_folder, tmp_path, capsys):
    assert Registry(runs).versions()
    days = ["--from", "2026-01-30", "--to", "2026-01-30"]
    arguments = [
        "--runs",
        str(runs),
        "--log",
        str(InteractionLog(tmp_path).root),
        "--bundle",
        bundle_folder.name,
    ]
    assert run(["evaluate", *arguments, *days]) == 3
    assert "no impressions in the log" in capsys.readouterr().err
