"""One set's JSON, small, for the tests of tables and pages."""

import pytest


@pytest.fixture
def toy_tree():
    """Give what makes the JSON of a set; named values replace its own."""
    return _tree


def _figure(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "runs": [], "validation": None}


def _tree(**changed):
    rows = [
        {
            "name": "mmoe",
            "ours": True,
            "seeds": 3,
            "note": "",
            "heads": {"r": {"rmse": _figure(0.9, 0.8, 1.0)}},
        },
        {"name": "ple", "ours": True, "seeds": 3, "note": "", "heads": {"r": {"rmse": _figure(0.7)}}},
        {"name": "mean", "ours": False, "seeds": 1, "note": "", "heads": {"r": {"rmse": _figure(0.95)}}},
        {"name": "trees", "ours": False, "seeds": 1, "note": "", "heads": {"r": {"rmse": _figure(0.85)}}},
        {"name": "truth", "ours": False, "seeds": 1, "note": "", "heads": {"r": {"rmse": _figure(0.1)}}},
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
