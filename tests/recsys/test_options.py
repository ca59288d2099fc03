"""What the commands share: one reader of dates, one way to put out JSON, the same option everywhere."""

import json

import pytest
from pydantic import BaseModel

from recsys.options import STANDARD_OUTPUT, put_json


class Report(BaseModel):
    title: str
    loss: float


@pytest.mark.parametrize("value", [{"title": "Süß", "loss": 1.5}, Report(title="Süß", loss=1.5)])
def test_a_file_and_standard_output_get_the_same_json(value, tmp_path, capsys):
    place, shown = tmp_path / "report.json", []
    put_json(value, place, lambda: shown.append("file"))
    assert shown == ["file"], "a file comes beside the tables"
    assert capsys.readouterr().out == ""
    put_json(value, STANDARD_OUTPUT, lambda: shown.append("-"))
    assert shown == ["file"], "a program reads standard output: no tables in it"
    written = place.read_text()
    assert capsys.readouterr().out == written
    assert json.loads(written) == {"title": "Süß", "loss": 1.5}
    put_json(value, None, lambda: shown.append("none"))
    assert shown == ["file", "none"]
    assert list(tmp_path.iterdir()) == [place]
