import functools
import json
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.quality.driver import measure_set
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.readers.census_reader import CATEGORIES, LEFT_OUT, NAMES, NUMBERS, census_rows
from benchmarks.quality.sets import census_income as census
from recsys.cli import run
from recsys.errors import DataError

ROWS = {"train": 1500, "test": 400}


def write_set(folder: Path, *, flip_test: bool = False) -> Path:
    """Write both files: income follows weeks worked and sex, marriage follows age."""
    folder.mkdir()
    for name, content in files(flip_test).items():
        (folder / name).write_bytes(content)
    return folder


@functools.cache
def files(flip_test: bool) -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    found = {}
    for part, num in ROWS.items():
        lines = []
        for _ in range(num):
            row = {n: rng.choice([" a", " b", " c"]) for n in NAMES} | {
                n: str(rng.integers(50)) for n in NUMBERS
            }
            row["instance_weight"] = " 1700.09"
            rich = int(row["weeks_worked"]) + 20 * (row["sex"] == " a") + rng.normal(0, 5) > 45
            single = int(row["age"]) + rng.normal(0, 3) < 20
            if flip_test and part == "test":
                rich, single = not rich, not single
            row["income_50k"] = " 50000+." if rich else " - 50000."
            row["marital_stat"] = " Never married" if single else " Widowed"
            lines.append(",".join(row[n] for n in NAMES))
        found[f"census-income.{part}.csv.xz"] = lzma.compress("\n".join(lines).encode())
    return found


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(
        census, "BUDGET", Budget(epochs=2, learning_rate=5e-3, sparse_learning_rate=0.1, weight_decay=0)
    )
    monkeypatch.setattr(census, "BATCH_SIZE", 64)
    monkeypatch.setattr(census, "ENSEMBLE_SIZE", 2)
    monkeypatch.setattr(census, "TRIALS", 1)


def test_the_files_are_read_by_their_published_columns(tmp_path):
    rows = census_rows(write_set(tmp_path / "set"))
    assert rows["train"].size + rows["validation"].size == ROWS["train"]
    assert rows["test"].size == ROWS["test"]
    assert not set(LEFT_OUT) & set(rows["train"].frame.columns)
    assert len(CATEGORIES) == 32
    assert rows["train"].ids.shape[1] == 32 + 2 * 7
    assert rows["train"].ids.max() < rows["train"].num_ids
    assert rows["test"].labels["income"].mean() == pytest.approx(
        rows["train"].labels["income"].mean(), abs=0.1
    )


def test_statistics_are_those_of_the_training_rows(tmp_path):
    rows = census_rows(write_set(tmp_path / "set"))
    assert np.allclose(rows["train"].numbers.mean(axis=0), 0, atol=1e-4)
    assert not np.allclose(rows["test"].numbers.mean(axis=0), 0, atol=1e-4)


def test_hidden_values_are_unknown_ones(tmp_path):
    rows = census_rows(write_set(tmp_path / "set"))["train"]
    hidden = rows.hidden(0.3, np.random.default_rng(0))
    changed = hidden.ids != rows.ids
    assert (hidden.ids == np.where(changed, rows.unknown, rows.ids)).all()
    assert changed[rows.ids != rows.unknown].mean() == pytest.approx(0.3, abs=0.01)
    assert (hidden.numbers == rows.numbers).all()
    # a bin is never unknown: 0 is a value
    bins = [len(CATEGORIES) + 1 + 2 * i for i in range(len(NUMBERS))]
    assert not (rows.ids == rows.unknown)[:, bins].any()


def test_values_are_hidden_in_training_alone(tmp_path, small, monkeypatch):
    rows = census_rows(write_set(tmp_path / "set"))
    seen = {"trained": [], "scored": []}
    batch = census.tabular_batch

    def watched(ids, *rest):
        seen["trained" if torch.is_grad_enabled() else "scored"].append(ids.numpy())
        return batch(ids, *rest)

    monkeypatch.setattr(census, "tabular_batch", watched)
    census.train_trunk(census.trunk_shapes(rows)["shared_bottom"], rows, 0)
    unknown = rows["train"].unknown
    share = {name: (np.concatenate(ids) == unknown).mean() for name, ids in seen.items()}
    given = np.concatenate([rows["validation"].ids] * 2 + [rows["test"].ids])  # each epoch, then the kept one
    assert share["scored"] == pytest.approx((given == unknown).mean(), abs=2e-3)
    before = (rows["train"].ids == unknown).mean()
    assert share["trained"] == pytest.approx(before + census.COLUMN_DROPOUT * (1 - before), abs=5e-3)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(DataError, match=r"census-income.train.csv is missing"):
        census_rows(tmp_path)


def test_the_command_writes_the_rows_and_one_best(tmp_path, small, capsys):
    target, asked = tmp_path / "census.json", ("mmoe", "single_task", "lightgbm", "logistic_regression")
    folder = write_set(tmp_path / "set")
    assert (
        run(
            [
                "bench",
                "quality",
                "--set",
                "census-income",
                "--data",
                str(folder),
                "--seeds",
                "2",
                "--rows",
                ",".join(asked),
                "--json",
                str(target),
            ]
        )
        == 0
    )
    tree = json.loads(target.read_text())
    rows = {row["name"]: row for row in tree["rows"]}
    assert set(rows) == set(asked)
    for name in asked[:2]:
        figure = rows[name]["heads"]["income"]["auc"]
        assert figure["low"] < figure["value"] < figure["high"]
        assert len(figure["runs"]) == rows[name]["seeds"] == 2
    assert 0.8 < tree["best"]["income"]["auc"] < 1
    assert 0.8 < tree["best"]["never_married"]["auc"] < 1
    assert tree["best"]["row"] in asked[:2]
    assert tree["best"]["row"] in capsys.readouterr().out
    means = {name: row["heads"]["never_married"]["auc"]["value"] for name, row in rows.items()}
    against = {d["against"]: d for d in tree["differences"] if d["head"] == "never_married"}
    assert set(against) == set(asked[2:])
    for name, difference in against.items():
        assert difference["value"] == pytest.approx(means[tree["best"]["row"]] - means[name], abs=1e-6)
        assert difference["low"] < difference["value"] < difference["high"]


def test_no_choice_looks_at_the_test_file(tmp_path, small):
    """With every test label turned round, the same epochs, rows and settings are chosen."""
    found = []
    for name in ("right", "poisoned"):
        said = []
        opened = census.open_census(write_set(tmp_path / name, flip_test=name == "poisoned"), tmp_path)
        report = measure_set(opened, 1, ["mmoe", "ple", "lightgbm"], said.append)
        found.append((said, report.as_json()["best"]["row"], [row.note for row in report.rows]))
        assert (report.as_json()["best"]["income"]["auc"] < 0.5) == (name == "poisoned")
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_published_files(small):
    root = os.environ.get("RECSYS_DATA")
    if root is None or not (Path(root) / "census_income_kdd").exists():
        pytest.skip("RECSYS_DATA has no census_income_kdd")
    rows = census_rows(Path(root) / "census_income_kdd")
    assert rows["train"].size + rows["validation"].size == 199_523
    assert rows["test"].size == 99_762
    assert rows["test"].labels["income"].mean() == pytest.approx(0.0620, abs=1e-4)
    assert rows["test"].labels["never_married"].mean() == pytest.approx(0.432, abs=1e-3)
