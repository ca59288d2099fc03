from serving.latency import MovingAverage
from serving.stage_costs import StageCosts


def test_everything_is_affordable_before_the_first_observation() -> None:
    assert StageCosts().affordable(300, 0.01) == 300
    assert StageCosts().can_retrieve(0.001)


def test_candidates_are_cut_to_the_time_left() -> None:
    costs = StageCosts()
    costs.observe(retrieval_s=0.01, scoring_s=0.3, num_candidates=300)
    assert costs.affordable(300, 1.0) == 300
    assert costs.affordable(300, 0.1, found=True) in (69, 70)
    assert costs.affordable(300, 0.1) in (59, 60)  # retrieval takes its time first
    assert costs.affordable(300, 0.01) == costs.affordable(300, -0.01) == 0
    assert costs.can_retrieve(0.02)
    assert not costs.can_retrieve(0.01)


def test_one_slow_answer_changes_an_estimate_little() -> None:
    average = MovingAverage()
    for _ in range(20):
        average.observe(0.003)
    average.observe(3.0)
    assert average.value < 0.004
