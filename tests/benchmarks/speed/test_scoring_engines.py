"""The bench of scoring counts the work that is there, and times every part of it."""

from benchmarks.speed.scoring_engines import measure_scoring


def test_a_small_catalogue():
    found = measure_scoring(items=60, repeats=1, experts=2, embedding_dim=4)
    assert list(found["candidates"]) == [50]
    (request,) = found["candidates"].values()
    # Two experts of 128 and 64 on 132 columns and more, for each candidate.
    assert request["flop"] > 2 * 50 * 2 * (128 * 132 + 128 * 64)
    assert request["engines"]["eager"]["difference"] == 0
    times = [*request["parts"].values(), *request["engines"].values()]
    assert all(part["processor_ms"] > 0 for part in times)
    assert request["floor_ms"] > 0
