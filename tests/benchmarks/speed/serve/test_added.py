"""What a run adds to the JSON of earlier ones."""

from benchmarks.speed.serve.serve_bench import added, with_keys


def run(**other_cores: float) -> dict:
    return {"commit": "c", "seconds_by_part": dict.fromkeys(other_cores, 1.0), "other_cores": other_cores}


def test_a_part_that_is_measured_again_is_as_noisy_as_its_last_run() -> None:
    first = with_keys({"max_rate": 20.0, "runs": [run(latency=0.9, overload=0.8)]})
    assert first["noisy"] == {
        "latency": "others took 0.90 cores",
        "overload": "others took 0.80 cores",
    }
    again = added(first, {"max_rate": 30.0, "runs": [run(latency=0.01)]})
    assert again["noisy"] == {"overload": "others took 0.80 cores"}
    assert again["max_rate"] == 30.0
    assert len(again["runs"]) == 2
