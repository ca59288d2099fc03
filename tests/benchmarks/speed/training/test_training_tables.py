"""Tables of the training bench: every part has its lines, and its figures stand where they should."""

import pytest

from benchmarks.speed.training.training_keys import named_keys
from benchmarks.speed.training.training_tables import GRIDS, show_training


def rates(median, noisy=False):
    ends = {"min": median - 10, "max": median + 10, "runs": [median]}
    return {"samples_per_second": {"median": median, **ends}, "other_cores": 0.4, "noisy": noisy}


@pytest.fixture
def tree():
    how = {"precision": "bf16", "processes": 1, "threads": 2}
    forms = ("one process, two threads", "two processes, one thread each")
    peaks = ("encode_anonymous_mb", "encode_files_mb", "stream_anonymous_mb", "stream_files_mb")
    seconds = {"median": 40.0, "min": 40.0, "max": 40.0, "runs": [40.0]}
    full, half = ({"8": {"0": {"click": a}, "1": {"click": a + 0.01}}} for a in (0.6, 0.601))
    tree = {
        "cpu": "a processor",
        "commit": "abc",
        "batch_sizes": ["8", "16"],
        "runs": [{"command": "recsys bench train", "commit": "abc", "seconds": 12.3}],
        "systems": {
            "ours": {"8": rates(5_000) | how | {"peak_rss_mb": 512.0}},
            "peer": {"8": rates(2_500, noisy=True) | {"threads": 2, "peak_rss_mb": 900.0}},
        },
        "floor": {"8": {"rows_per_second": 10_000}},
        "auc": {"ours": {"8": {"0": {"click": 0.6, "purchase": 0.7}, "1": {"click": 0.62, "purchase": 0.7}}}},
        "sanity_auc": {"oracle": {"click": 0.85, "purchase": 0.88}},
        "choice": {"8": {"fp32, 1 process": 4_000.0}},
        "product": {
            name: {h: rates(r) | how for h in ("one_thread", "free")}
            for name, r in (("now", 300), ("before", 100))
        },
        "product_choice": {"bf16, 1 × 2 threads": 300.0},
        "product_parts": {f"{n}_rows_per_second": 7.0 for n in ("snapshot", "encode", "batch")}
        | {"fit": {"fp32": {"rows_per_second": 50.0, "share_of_floor": 0.25}}},
        "processes": {
            "synthetic log": {name: {"8": rates(70)} for name in forms},
            "product model": {name: rates(60) | how for name in forms},
        },
        "precision": {
            "synthetic log": {"fp32": full, "bf16": half},
            "product model": {"fp32": {"rating RMSE": [0.8, 0.9]}, "bf16": {"rating RMSE": [0.8, 0.8]}},
        },
        "memory": {"2000000": dict.fromkeys(peaks, 1_234.0) | {"encode_s": 9.0, "stream_s": 8.0}},
        "night": {"now": {"seconds": seconds, "other_cores": 0.0, "noisy": False}},
    }
    return tree | named_keys(tree)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "systems",
            "ours | 8 | 5,000 (4,990 to 5,010) | 512 | 0.6100 (0.6000 to 0.6200) | 0.7000 (0.7000 to 0.7000)"
            " | 1 × 2 threads, bf16",
        ),
        (
            "systems",
            "peer | 8 | 2,500 (2,490 to 2,510), noisy: 0.40 cores of others | 900 | – | –"
            " | 1 × 2 threads, fp32",
        ),
        ("ratios", "samples/s over the best peer's | 2 | –"),
        ("ratios", "share of the floor | 0.5 | –"),
        ("measure", "oracle | 0.8500 | 0.8800"),
        ("choice", "product model | bf16, 1 × 2 threads | 300"),
        ("product", "ratio | 3.00 | 3.00"),
        ("product_parts", "fit, fp32 | 50 | 0.25"),
        ("processes", "two processes, one thread each | 70 (60 to 80) | 60 (50 to 70) | bf16"),
        (
            "precision",
            "synthetic log, batch 8, click AUC | 0.6050 (0.6000 to 0.6100) | 0.6060 (0.6010 to 0.6110)"
            " | +0.0010 | 0.0100",
        ),
        (
            "precision",
            "product model, rating RMSE | 0.8500 (0.8000 to 0.9000) | 0.8000 (0.8000 to 0.8000)"
            " | -0.0500 | 0.1000",
        ),
        ("memory", "2,000,000 | 1,234 | 1,234 | 1,234 | 1,234 | 9 | 8"),
        ("night", "now | 40.0"),
        ("runs", "`recsys bench train` | abc | 12"),
    ],
)
def test_a_part_has_its_line(tree, name, expected):
    titles, *lines = GRIDS[name](tree)
    assert expected.split(" | ") in lines
    assert {len(line) for line in lines} == {len(titles)}


def test_all_that_was_measured_is_printed_and_nothing_else_is_asked_for(tree, capsys):
    show_training(tree)
    printed = capsys.readouterr().out
    for said in (
        "first night of the demo",
        "noisy: peer, batch 8",
        "not measured: ratio_to_best_peer, batch 16",
    ):
        assert said in printed
    bare = {key: tree[key] for key in ("cpu", "commit", "batch_sizes", "runs", "night")}
    show_training(bare | named_keys(bare))
    assert "samples/s" not in capsys.readouterr().out
