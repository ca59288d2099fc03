import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.baselines.biases import fit_biases
from benchmarks.quality.catalogue_lists import model_scorer, positives, split_with_lists
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pair_data import Pairs, Sides
from benchmarks.quality.models.pair_model import train_pairs
from benchmarks.quality.models.spectral import spectral_start
from benchmarks.quality.readers.caserec_reader import read_bookcrossing
from benchmarks.quality.sets import book_crossing
from benchmarks.quality.sets.book_crossing import (
    bias_model,
    rated,
    setting_of,
    start,
    train_row,
    tree_features,
    trees,
)
from recsys.cli import run

READERS, BOOKS = 40, 30


@pytest.fixture
def folder(tmp_path):
    """Readers have even or odd books, and rate half of them by book and reader."""
    rng = np.random.default_rng(0)
    history, ratings = ["user\titem\taccessed"], ["user\titem\trating"]
    worth, taste = rng.normal(0, 1.5, BOOKS), rng.normal(0, 1, READERS)
    for reader in range(READERS):
        for book in rng.permutation(np.arange(reader % 2, BOOKS, 2))[:12]:
            history.append(f"{reader + 1}\t{book + 1}\t1")
            if rng.random() < 0.5:
                stars = int(np.clip(round(6 + worth[book] + taste[reader]), 1, 10))
                ratings.append(f"{reader + 1}\t{book + 1}\t{stars}.000000")
    people = ["User-ID\tLocation\tAge", *(f"{r + 1}\ttown, land{r % 2}\t{20 + r}\t" for r in range(READERS))]
    books = [
        "Book_ID\tISBN\tBook-Title\tBook-Author\tYear-Of-Publication\tPublisher\tImage-URL-S",
        *(
            f"{b + 1}\tX\tTitle\tAuthor {b % 5}\t{1990 + b % 9}\tHouse {b % 3}\thttp://x\t"
            for b in range(BOOKS)
        ),
    ]
    members = {"history": history, "ratings": ratings}
    with zipfile.ZipFile(tmp_path / "book_crossing.zip", "w") as archive:
        for name, lines in members.items():
            archive.writestr(f"book_crossing/book_{name}.dat", "\n".join(lines))
        archive.writestr("book_crossing/users_info.dat", "\n".join(people))
        archive.writestr("book_crossing/items_info.dat", "\n".join(books))
    return tmp_path


@pytest.fixture
def split_and_lists(folder):
    return split_with_lists(*read_bookcrossing(folder), (0.2, 0.1), ("interaction",), (30, 10))


@pytest.fixture
def parts(split_and_lists):
    return split_and_lists[0]


@pytest.fixture
def quick(monkeypatch):
    budget = Budget(epochs=3, learning_rate=1e-2, sparse_learning_rate=0.2, weight_decay=0, decay=0.9)
    monkeypatch.setattr(book_crossing, "BUDGET", budget)
    monkeypatch.setattr(book_crossing, "BATCH_SIZE", 128)
    monkeypatch.setattr(book_crossing, "DIM", 8)
    monkeypatch.setattr("benchmarks.quality.sets.book_crossing.TRIALS", 1)


def test_only_rated_books_are_rated(parts):
    found = rated(parts.train)
    assert 0 < found.size < parts.train.size
    assert not np.isnan(found.labels["rating"]).any()


def test_tree_features_are_codes_counts_and_the_bias():
    """Users 0 and 1 of countries b and a; books 0 and 1 of one author. User 1 has two known books."""
    sides = Sides(user_ids=np.array([[0, 3], [1, 2]]), item_ids=np.array([[4, 6], [5, 6]]), num_ids=7)
    nothing = {"rating": np.ones(3, np.float32)}
    known = Pairs(user=np.array([0, 1, 1]), item=np.array([1, 0, 1]), labels=nothing)
    asked = Pairs(user=np.array([1, 0]), item=np.array([1, 0]), labels={})
    found = tree_features(sides, known, asked, np.array([7.5, 8.5]))
    counts = np.log1p([[2, 2], [1, 1]])
    assert found == pytest.approx(np.array([[0, 0, *counts[0], 7.5], [1, 0, *counts[1], 8.5]]))


def test_a_tree_s_training_row_does_not_count_itself(monkeypatch, parts):
    """So a pair says the same of itself whether it is trained on or held out."""
    one, rest = parts.train.take(np.array([0])), parts.train.take(np.arange(1, parts.train.size))
    bias = np.zeros(1)
    held_out = tree_features(parts.sides, rest, one, bias)
    trained = tree_features(parts.sides, parts.train, one, bias, among_known=True)
    assert np.array_equal(trained, held_out)
    given = {}

    def look(train, validation, **_):
        given.update(train=train.features, validation=validation.features)
        raise KeyboardInterrupt

    monkeypatch.setattr(book_crossing, "tuned_trees", look)
    with pytest.raises(KeyboardInterrupt):
        trees(parts)
    own, counts = rated(parts.train), slice(-3, -1)
    others = np.column_stack(
        [np.bincount(parts.train.user)[own.user] - 1, np.bincount(parts.train.item)[own.item] - 1]
    )
    assert given["train"][:, counts] == pytest.approx(np.log1p(others))


@pytest.mark.parametrize("fit", [bias_model, trees])
def test_a_simple_model_never_sees_test_ratings(parts, quick, fit):
    if fit is trees:
        pytest.importorskip("lightgbm")
    turned = replace(parts.test, labels={t: 11 - label for t, label in parts.test.labels.items()})
    one, other = (fit(p).test["rating"] for p in (parts, replace(parts, test=turned)))
    assert np.array_equal(one, other)
    mean = rated(parts.train).labels["rating"].mean()
    error, of_mean = (np.mean((rated(parts.test).labels["rating"] - p) ** 2) for p in (one, mean))
    assert error < of_mean


def test_no_choice_looks_at_the_test_part(split_and_lists, quick, monkeypatch):
    parts, lists = split_and_lists
    monkeypatch.setattr(book_crossing, "BUDGET", replace(book_crossing.BUDGET, epochs=6))
    turned = replace(parts.test, labels={t: 11 - label for t, label in parts.test.labels.items()})
    (one, _), (other, _) = (train_row(p, lists, "mmoe", 0) for p in (parts, replace(parts, test=turned)))
    assert np.array_equal(one.validation["rating"], other.validation["rating"])
    assert np.array_equal(one.test["rating"], other.test["rating"])


def test_a_row_alone_has_one_head_and_the_weights_are_the_ratings():
    assert [t.name for t in setting_of("rating_alone").tasks] == ["rating"]
    assert [t.debias for t in setting_of("mmoe_ips").tasks] == [None, "ips"]
    assert [t.debias for t in setting_of("ple").tasks] == [None, None]


def test_the_command_judges_ratings_and_lists(folder, quick):
    target = folder / "bc.json"
    rows = "mmoe,mmoe_ips,all_together,rating_alone,mean,bias_model,ease"
    arguments = ["--set", "book-crossing", "--data", str(folder), "--seeds", "2", "--rows", rows]
    assert run(["bench", "quality", *arguments, "--json", str(Path(target))]) == 0
    tree = json.loads(target.read_text())
    found = {row["name"]: row["heads"] for row in tree["rows"]}
    assert set(found["mmoe"]) == {"rating", "interaction"}
    assert set(found["mmoe"]["interaction"]) == {"recall@10", "ndcg@10"}
    assert found["all_together"]["rating"] == found["mmoe"]["rating"], "its heads are those of a row"
    assert set(found["rating_alone"]) == set(found["bias_model"]) == {"rating"}
    assert set(found["ease"]) == {"interaction"}
    assert found["bias_model"]["rating"]["rmse"]["value"] < found["mean"]["rating"]["rmse"]["value"]
    said = {(d["row"], d["against"], d["head"], d["metric"]): d for d in tree["differences"]}
    asked = {("mmoe", "rating_alone"), ("mmoe_ips", "mmoe")}
    best = tree["best"]["row"]
    held = {(best, other, "rating", "rmse") for other in ("rating_alone", "mean", "bias_model")}
    lists = [("interaction", metric) for metric in ("recall@10", "ndcg@10")]
    held |= {(best, "ease", *of) for of in lists} | {("mmoe_ips", "mmoe", *of) for of in lists}
    assert set(said) == held | {(*pair, "rating", "rmse") for pair in asked}
    for (row, against, head, metric), d in said.items():
        value = [found[name][head][metric]["value"] for name in (row, against)]
        assert d["value"] == pytest.approx(value[0] - value[1])


def test_ratings_start_from_biases_and_lists_from_pure_svd(parts, quick, monkeypatch):
    monkeypatch.setattr(book_crossing, "START_SCALE", 10.0)
    found = {}

    def look(model):
        start(parts, model)
        found.update(model.predict(rated(parts.test)))
        found["scores"] = model_scorer(model, "interaction")(np.arange(READERS))

    shape = setting_of("mmoe").trunks(book_crossing.SHAPE)["mmoe"]
    setting = replace(setting_of("mmoe"), row_dropout=0.0)
    train_pairs(parts.sides, parts.train, shape, setting, 0, None, None, look)
    biases_ = fit_biases(rated(parts.train), "rating", book_crossing.START_PENALTY, parts.sides.shape)
    # Other columns start with small terms of their own.
    assert found["rating"] == pytest.approx(biases_.predict(rated(parts.test)), abs=0.2)
    vectors = spectral_start(positives(parts.train, parts.sides.shape), 8, book_crossing.START_SCALE)
    logits = np.log(found["scores"] / (1 - found["scores"]))
    assert np.corrcoef(logits.ravel(), (vectors.users @ vectors.items.T).ravel())[0, 1] > 0.99
