"""Pages of the benchmarks: the committed tables are those that the committed JSON gives."""

import json
from pathlib import Path

import pytest

from benchmarks.quality import SETS
from benchmarks.quality.result_pages import fill_pages
from recsys.cli import run
from recsys.errors import ConfigError

DOCS = Path(__file__).parents[3] / "docs"
ROWS = "<!-- table: rows -->\nold\n<!-- end of table -->"


@pytest.fixture
def docs(tmp_path, toy_tree):
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks.md").write_text("# All\n<!-- table: summary -->\n<!-- end of table -->\nend\n")
    (tmp_path / "benchmarks" / "toy.md").write_text(f"# Toy\n{ROWS}\nprose\n")
    (tmp_path / "benchmarks" / "results" / "toy.json").write_text(json.dumps(toy_tree()))
    return tmp_path


def test_the_committed_pages_are_what_the_committed_json_gives():
    for page, text in fill_pages(DOCS).items():
        assert page.read_text() == text, f"{page.name}: run `recsys bench tables`"


def test_every_set_has_its_figures_and_says_where_they_are_from():
    folder = DOCS / "benchmarks" / "results"
    results = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert set(results) == set(SETS)
    for name, of in results.items():
        assert of["command"].startswith(f"recsys bench quality --set {name} ")
        assert of["commit"]
        assert of["best"]["row"] in {row["name"] for row in of["rows"]}
        page = (DOCS / "benchmarks" / f"{name}.md").read_text()
        assert "<!-- table: rows -->" in page
        assert bool(of["differences"]) == ("<!-- table: differences -->" in page)


def test_the_command_rewrites_the_tables_alone_and_twice_is_once(docs, capsys):
    for said in ("written", "as it was"):
        assert run(["bench", "tables", "--docs", str(docs)]) == 0
        assert capsys.readouterr().out.count(said) == 2
    page = (docs / "benchmarks" / "toy.md").read_text()
    assert "| mmoe (chosen on validation) | 0.9000 (0.8000 to 1.0000) | 3 |" in page
    assert page.startswith("# Toy\n<!-- table: rows -->\n| row |")
    assert page.endswith("|\n<!-- end of table -->\nprose\n")
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
