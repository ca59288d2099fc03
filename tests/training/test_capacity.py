"""Plans of tables on GPUs that are not there, against numbers worked out by hand."""

import json

import pytest

from recsys.cli import run
from training.capacity import Fleet, Workload, plan_capacity

HAND = Workload(users=1_000, items=200, dim=8, batch_size=16, history_length=0)
MB = 1_000_000


def test_a_small_plan_by_hand():
    """1,200 rows of 8 floats are 38,400 bytes, their accumulators 4,800."""
    plan = plan_capacity(HAND, Fleet(gpus=2, hbm_bytes=MB, reserved_share=0.5))
    assert plan.fits
    assert [(t.name, t.weight_bytes, t.state_bytes) for t in plan.tables] == [
        ("user_id", 32_000, 4_000),
        ("item_id", 6_400, 800),
    ]
    assert sum(r.weight_bytes for r in plan.ranks) == 38_400
    assert sum(r.state_bytes for r in plan.ranks) == 4_800
    assert all(r.total_bytes == r.weight_bytes + r.state_bytes + r.step_bytes <= 500_000 for r in plan.ranks)
    assert all(r.step_bytes > 0 for r in plan.ranks)
    assert all(t.sharding is not None and set(t.ranks) <= {0, 1} for t in plan.tables)


def test_a_table_larger_than_a_gpu_is_cut_by_rows():
    """100,000 rows of 8 floats: 3.2 MB, and .4 MB of accumulators, on 8 GPUs of 1 MB."""
    large = HAND.model_copy(update={"users": 100_000})
    plan = plan_capacity(large, Fleet(gpus=8, hbm_bytes=MB, reserved_share=0.1))
    assert plan.tables[0].sharding == "row_wise"
    assert plan.tables[0].ranks == tuple(range(8))
    assert max(r.weight_bytes for r in plan.ranks) >= 12_500 * 8 * 4


def test_what_does_not_fit_says_what_would():
    """3.6072 MB on 2 GPUs that leave .9 MB each: 5 GPUs, 2.1 MB a GPU, or 4 columns (2.0 MB)."""
    large, fleet = HAND.model_copy(update={"users": 100_000}), Fleet(gpus=2, hbm_bytes=MB, reserved_share=0.1)
    plan = plan_capacity(large, fleet)
    assert (plan.fits, plan.ranks) == (False, ())
    assert plan.missing.startswith("the tables need 0.0 GB and a step's rows; 2 GPUs leave them 0.0 GB")
    assert "--gpus 5" in plan.remedies
    assert plan_capacity(large, fleet.model_copy(update={"gpus": 5})).fits
    assert plan_capacity(large, fleet.model_copy(update={"gpus": 4})).fits is False
    assert not any(remedy.startswith("--dim") for remedy in plan.remedies), "4 columns need 2.004 MB, not 1.8"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--users", "0"), "--users 0: give a whole number of rows"),
        (("--users", "1.5"), "--users 1.5"),
        (("--dim", "6"), "multiples of 4"),
        (("--gpus", "0"), "--gpus 0: give a whole number from 1 to"),
        (("--hbm", "-1"), "--hbm -1"),
        (("--reserve", "1"), "--reserve 1: give a share from 0 to below 1"),
    ],
)
def test_senseless_input_is_refused(wrong, said, capsys):
    options = {"--users": "1e3", "--items": "1e3", "--dim": "8", "--gpus": "2", "--hbm": "1"} | dict([wrong])
    code = run(["plan", *(word for pair in options.items() for word in pair)])
    assert code not in (0, 1)
    assert said in capsys.readouterr().err


def test_the_command_writes_json_and_exits_with_1_when_nothing_fits(capsys):
    sizes = ["--users", "1e9", "--items", "1e8", "--dim", "64", "--json", "-"]
    assert run(["plan", *sizes, "--gpus", "64", "--hbm", "141"]) == 0
    found = json.loads(capsys.readouterr().out)
    # 1.1e9 rows / 64 = 17,187,500 a GPU: 64 floats and an accumulator each.
    assert {(r["weight_bytes"], r["state_bytes"]) for r in found["ranks"]} == {
        (17_187_500 * 256, 17_187_500 * 4)
    }
    assert run(["plan", *sizes, "--gpus", "2", "--hbm", "80"]) == 1
    assert json.loads(capsys.readouterr().out)["remedies"] == ["--gpus 5", "--dim 28", "--hbm 169"]
