"""Ordinal heads: a proper distribution over levels, its mean, its likelihood; other losses by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.head_functions import (
    MIN_GAP,
    CumulativeLink,
    expected_level,
    head_loss,
    likelihood,
    log_level_probabilities,
)
from recsys.tasks import TaskSpec


def _stars(**values):
    return TaskSpec(
        **{"name": "s", "feedback": "s", "head": "ordinal", "window": "1d", "space": "observed", **values}
    )


HALVES = _stars(low=0.5, high=5.0, step=0.5)


def _link(task, seed):
    link = CumulativeLink(task)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in link.parameters():
            parameter.copy_(3 * torch.randn(parameter.shape, generator=generator))
    return link


@given(score=st.floats(-30, 30), seed=st.integers(0, 50))
@pytest.mark.parametrize("task", [_stars(), HALVES, _stars(low=0, high=1)], ids=["stars", "halves", "two"])
def test_levels_have_a_distribution_whatever_the_parameters(task, score, seed):
    logits = _link(task, seed)(torch.tensor([score]))
    above = logits.sigmoid()[0]
    assert logits.shape == (1, task.num_levels - 1)
    assert (above.diff() <= 0).all(), "P(above a level) falls from level to level"
    p = log_level_probabilities(logits).exp()[0]
    assert (p >= 0).all()
    assert p.sum().item() == pytest.approx(1, abs=1e-3)
    levels = torch.linspace(task.low, task.high, task.num_levels)
    assert expected_level(logits, task).item() == pytest.approx((p * levels).sum().item(), abs=5e-3)


def test_thresholds_keep_apart_when_training_pushes_them_together():
    link = CumulativeLink(_stars())
    with torch.no_grad():
        link.gaps.fill_(-1e3)
    assert (-link(torch.zeros(1)).diff() >= MIN_GAP * 0.99).all()


def test_every_level_keeps_a_probability_whatever_thresholds_and_scores_are():
    link = CumulativeLink(_stars())
    with torch.no_grad():
        link.gaps.fill_(-1e3)
    assert (log_level_probabilities(link(torch.zeros(1))).exp() > 1e-5).all()
    huge = log_level_probabilities(link(torch.tensor([-1e6, 1e6])))  # float32 rounds the gaps off
    assert torch.isfinite(huge).all()


def test_a_fresh_head_gives_all_levels_the_same_probability():
    p = log_level_probabilities(CumulativeLink(HALVES)(torch.zeros(1))).exp()
    torch.testing.assert_close(p, torch.full((1, 10), 0.1))


@pytest.mark.parametrize(("label", "level"), [(1.0, 0), (3.0, 2), (5.0, 4), (9.0, 4), (-2.0, 0)])
def test_the_loss_is_minus_the_log_probability_of_the_level(label, level):
    task = _stars()
    logits = _link(task, 3)(torch.tensor([0.7]))
    above = [1.0, *logits.sigmoid()[0].double().tolist(), 0.0]
    expected = -math.log(above[level] - above[level + 1])
    assert likelihood(logits, torch.tensor([label]), task).item() == pytest.approx(expected, rel=1e-4)


def test_a_label_between_two_levels_counts_for_both():
    task, logits = _stars(), CumulativeLink(_stars())(torch.tensor([0.7]))
    two, three, between = (likelihood(logits, torch.tensor([y]), task).item() for y in (2.0, 3.0, 2.25))
    assert between == pytest.approx(0.75 * two + 0.25 * three, rel=1e-5)


def test_it_finds_the_thresholds_that_made_the_labels():
    """Labels from known thresholds and scores: the likelihood's maximum is where they came from."""
    rng = np.random.default_rng(0)
    true = np.array([-2.0, -0.5, 0.2, 1.5])
    score = rng.normal(0, 1.5, 20_000)
    label = 1 + (score[:, None] + rng.logistic(size=(20_000, 1)) > true).sum(axis=1)
    task, link = _stars(), CumulativeLink(_stars())
    scores, labels = torch.tensor(score, dtype=torch.float32), torch.tensor(label, dtype=torch.float32)
    optimiser = torch.optim.LBFGS(link.parameters(), max_iter=60)

    def loss():
        optimiser.zero_grad()
        value = likelihood(link(scores), labels, task).mean()
        value.backward()
        return value

    optimiser.step(loss)
    np.testing.assert_allclose(-link(torch.zeros(1)).detach().numpy()[0], true, atol=0.08)
    assert expected_level(link(scores), task).mean().item() == pytest.approx(label.mean(), abs=0.01)


@pytest.mark.parametrize(("p", "label"), [(0.9, 1.0), (0.9, 0.0), (0.2, 1.0)])
def test_focal_loss_by_hand(p, label):
    task = TaskSpec(name="c", feedback="c", head="binary", window="1h", loss="focal")
    right = p if label else 1 - p
    logit = torch.tensor([math.log(p / (1 - p))])
    found = head_loss(logit, torch.tensor([label]), task).item()
    assert found == pytest.approx((1 - right) ** 2 * -math.log(right), rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "label", "expected"),
    [("mse", 5.0, 4.0), ("mae", 5.0, 2.0), ("huber", 5.0, 1.5), ("huber", 3.5, 0.125), ("mae", 3.5, 0.5)],
)
def test_errors_are_in_quarters_of_the_range(loss, label, expected):
    task = TaskSpec(name="r", feedback="r", head="regression", window="1d", loss=loss)
    found = head_loss(torch.zeros(1), torch.tensor([label]), task).item()
    assert found == pytest.approx(expected)
