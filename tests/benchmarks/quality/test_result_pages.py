"""Pages of the benchmarks: the committed tables are those that the committed JSON gives."""

import json
from pathlib import Path

import pytest

from benchmarks.quality import SETS
from benchmarks.quality.result_pages import (
    differences_table,
    fill_pages,
    read_results,
    rows_table,
    summary_table,
)
from recsys.cli import run
from recsys.errors import ConfigError

DOCS = Path(__file__).parents[3] / "docs"
ROWS = "<!-- table: rows -->\nold\n<!-- end of table -->"


def figure(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "runs": [], "validation": None}


def tree(**changed):
    rows = [
        {
            "name": "mmoe",
            "ours": True,
            "seeds": 3,
            "note": "",
            "heads": {"r": {"rmse": figure(0.9, 0.8, 1.0)}},
        },
        {"name": "ple", "ours": True, "seeds": 3, "note": "", "heads": {"r": {"rmse": figure(0.7)}}},
        {"name": "mean", "ours": False, "seeds": 1, "note": "", "heads": {"r": {"rmse": figure(0.95)}}},
        {"name": "trees", "ours": False, "seeds": 1, "note": "", "heads": {"r": {"rmse": figure(0.85)}}},
        {"name": "truth", "ours": False, "seeds": 1, "note": "", "heads": {"r": {"rmse": figure(0.1)}}},
    ]
    difference = {"row": "mmoe", "against": "trees", "head": "r", "metric": "rmse", "verdict": "worse"}
    return {
        "set": "toy",
        "command": "recsys bench quality --set toy",
        "commit": "abc1234",
        "rows": rows,
        "best": {"row": "mmoe", "r": {"rmse": 0.9}},
        "published": {"paper": {"r": {"rmse": 0.8}}, "older": {"r": {"rmse": 0.99}}},
        "differences": [difference | {"value": 0.05, "low": 0.01, "high": 0.09}],
        **changed,
    }


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks.md").write_text("# All\n<!-- table: summary -->\n<!-- end of table -->\nend\n")
    (tmp_path / "benchmarks" / "toy.md").write_text(f"# Toy\n{ROWS}\nprose\n")
    (tmp_path / "benchmarks" / "results" / "toy.json").write_text(json.dumps(tree()))
    return tmp_path


def test_the_committed_pages_are_what_the_committed_json_gives():
    for page, text in fill_pages(DOCS).items():
        assert page.read_text() == text, f"{page.name}: run `recsys bench tables`"


def test_every_set_has_its_figures_and_says_where_they_are_from():
    results = read_results(DOCS / "benchmarks" / "results")
    assert set(results) == set(SETS)
    for name, of in results.items():
        assert of["command"].startswith(f"recsys bench quality --set {name} ")
        assert of["commit"]
        assert of["best"]["row"] in {row["name"] for row in of["rows"]}
        page = (DOCS / "benchmarks" / f"{name}.md").read_text()
        assert "<!-- table: rows -->" in page
        assert bool(of["differences"]) == ("<!-- table: differences -->" in page)


def test_rows_mark_the_chosen_one_and_hold_published_ones():
    assert rows_table(tree()).splitlines() == [
        "| row | r rmse | seeds |",
        "| --- | --- | --- |",
        "| **mmoe** (chosen on validation) | 0.9000 (0.8000 to 1.0000) | 3 |",
        "| ple | 0.7000 | 3 |",
        "| mean | 0.9500 | 1 |",
        "| trees | 0.8500 | 1 |",
        "| truth | 0.1000 | 1 |",
        "| *paper* | 0.8000 |  |",
        "| *older* | 0.9900 |  |",
    ]


def test_differences_are_bold_where_the_interval_leaves_out_zero():
    assert differences_table(tree()).splitlines()[2:] == [
        "| mmoe - trees | **+0.0500** (+0.0100 to +0.0900) worse |"
    ]
    none = tree()["differences"][0] | {"low": -0.01, "verdict": "no evidence"}
    assert "| +0.0500 (-0.0100 to +0.0900) no evidence |" in differences_table(tree(differences=[none]))


def test_the_summary_holds_the_chosen_row_against_the_best_baseline_of_that_figure():
    """Neither the row that is best on the test nor an oracle counts."""
    (line,) = summary_table({"toy": tree()}).splitlines()[2:]
    assert line == (
        "| [toy](benchmarks/toy.md) | r rmse | mmoe 0.9000 | trees 0.8500 | worse | paper 0.8000 | "
        "`recsys bench quality --set toy` | abc1234 |"
    )
    assert "| not compared |" in summary_table({"toy": tree(differences=[])})


def test_the_command_rewrites_the_tables_alone_and_twice_is_once(docs, capsys):
    for said in ("written", "as it was"):
        assert run(["bench", "tables", "--docs", str(docs)]) == 0
        assert capsys.readouterr().out.count(said) == 2
    page = (docs / "benchmarks" / "toy.md").read_text()
    assert page == f"# Toy\n{ROWS.replace('old', rows_table(tree()))}\nprose\n"
    assert (docs / "benchmarks.md").read_text().endswith("<!-- end of table -->\nend\n")


@pytest.mark.parametrize(
    ("page", "text", "said"),
    [
        ("benchmarks/toy.md", "<!-- table: row -->\n<!-- end of table -->", "it can have: rows, differences"),
        ("benchmarks/toy.md", None, "write the page of toy"),
        ("benchmarks/results/toy.json", None, "has no"),
    ],
)
def test_what_is_missing_is_named(docs, page, text, said, capsys):
    if text is None:
        (docs / page).unlink()
    else:
        (docs / page).write_text(text)
    with pytest.raises(ConfigError, match=said):
        fill_pages(docs)
    assert run(["bench", "tables", "--docs", str(docs)]) == 2
    assert said in capsys.readouterr().err
