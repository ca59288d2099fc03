import numpy as np

from benchmarks.quality.result_tables import differences_grid, rows_grid, summary_grid
from benchmarks.quality.several_logs import log_differences_grid, logs_grid


def test_rows_name_the_chosen_one_and_published_ones_follow(toy_tree):
    assert rows_grid(toy_tree()) == [
        ["row", "r rmse", "seeds", "note"],
        ["mmoe (chosen on validation)", "0.9000 (0.8000 to 1.0000)", "3", ""],
        ["ple", "0.7000", "3", ""],
        ["mean", "0.9500", "1", ""],
        ["trees", "0.8500", "1", ""],
        ["truth", "0.1000", "1", ""],
        ["paper", "0.8000", "", "published"],
        ["older", "0.9900", "", "published"],
    ]
    assert rows_grid(toy_tree(published={}))[0] == ["row", "r rmse", "seeds"], "no empty column"


def test_a_table_has_the_columns_of_all_rows(toy_tree):
    """The first row has no lists; of a head whose lists come later, the columns still stand together."""
    half = {"value": 0.5, "low": None, "high": None}
    rows = [
        {"name": "biases", "seeds": 1, "note": "", "heads": {"cart": {"auc": half}, "buy": {"auc": half}}},
        {"name": "ease", "seeds": 1, "note": "penalty 1", "heads": {"cart": {"ndcg@10": half}}},
    ]
    grid = rows_grid(toy_tree(rows=rows, published={"paper": {"view": {"ndcg@10": 0.25}}}))
    assert grid[0][1:-2] == ["cart auc", "cart ndcg@10", "buy auc", "view ndcg@10"]
    assert [line[2] for line in grid[1:]] == ["–", "0.5000", "–"]
    assert [line[4] for line in grid[1:]] == ["–", "–", "0.2500"]
    assert grid[2][-1] == "penalty 1"


def test_differences_have_a_line_per_pair_and_their_verdict(toy_tree):
    assert differences_grid(toy_tree()) == [
        ["row - other row", "r rmse"],
        ["mmoe - trees", "+0.0500 (+0.0100 to +0.0900) worse"],
    ]
    none = toy_tree()["differences"][0] | {"low": None, "high": None, "verdict": "no evidence"}
    assert differences_grid(toy_tree(differences=[none]))[1][1] == "+0.0500 no evidence"


def of_log(model, oracle):
    heads = [
        {"r": {"rmse": 1.0}, "c": {"list_auc": v, "true_list_auc": v + 0.01, "auc": 0.7}}
        for v in (model, oracle)
    ]
    return {"by_row": dict(zip(("mmoe", "oracle"), heads, strict=True))}


def test_several_logs_have_their_mean_and_intervals_over_logs():
    trees = [of_log(0.62, 0.60), of_log(0.63, 0.64), of_log(0.64, 0.61)]
    assert logs_grid(trees) == [
        ["row", "c list_auc", "c true_list_auc"],
        ["mmoe", "0.6300 (.620, .630, .640)", "0.6400 (.630, .640, .650)"],
        ["oracle", "0.6167 (.600, .640, .610)", "0.6267 (.610, .650, .620)"],
    ]
    (titles, line) = log_differences_grid(trees)
    assert titles[1:] == ["c list_auc", "c true_list_auc"]
    half = 4.303 * np.std([0.02, -0.01, 0.03], ddof=1) / 3**0.5
    expected = f"+0.0133 ({0.04 / 3 - half:+.4f} to {0.04 / 3 + half:+.4f}), above on 2 of 3"
    assert line == ["mmoe - oracle", expected, expected]


def test_the_summary_holds_the_chosen_row_against_the_best_baseline_of_that_figure(toy_tree):
    """Neither the row that is best on the test nor an oracle counts."""
    line = summary_grid({"toy": toy_tree()})[1]
    assert line == [
        "[toy](benchmarks/toy.md)",
        "r rmse",
        "mmoe 0.9000",
        "trees 0.8500",
        "worse",
        "paper 0.8000",
        "`recsys bench quality --set toy`",
        "abc1234",
    ]
    assert summary_grid({"toy": toy_tree(differences=[])})[1][4] == "not compared"
