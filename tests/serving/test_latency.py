from serving.latency import LatencyEstimate


def test_everything_is_affordable_before_the_first_observation() -> None:
    assert LatencyEstimate().affordable(300, 0.01) == 300


def test_candidates_are_cut_to_the_time_left() -> None:
    pace = LatencyEstimate()
    pace.observe(scoring_s=0.3, num_candidates=300)
    assert pace.affordable(300, 1.0) == 300
    assert pace.affordable(300, 0.1) in (69, 70)
    assert pace.affordable(300, 0.01) in (6, 7)
    assert pace.affordable(300, -0.01) == 0


def test_one_slow_answer_changes_the_estimate_little() -> None:
    pace = LatencyEstimate()
    for _ in range(20):
        pace.observe(0.003, 300)
    pace.observe(3.0, 300)
    assert pace.affordable(300, 0.05) == 300
