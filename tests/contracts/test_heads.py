"""Every head kind: ignores what was not observed, is trained by what was, predicts in its own unit."""

import pytest
import torch

from recsys.batch import Batch
from recsys.model.heads import HEAD_KINDS, Heads
from recsys.tasks import TaskSpec
from training.objective import task_losses

ROWS = 12


@pytest.fixture(params=sorted(HEAD_KINDS))
def task(request) -> TaskSpec:
    return TaskSpec(name="t", feedback="f", head=request.param, window="1h", low=1.0, high=5.0)


def _batch(labels, observed):
    empty = torch.zeros(0)
    return Batch(
        rows={},
        index={},
        item_text_UT=empty,
        user_numbers_BF=empty,
        item_numbers_BF=empty,
        context_numbers_BF=empty,
        item_text_BT=empty,
        history_index_BL=empty,
        history_kind_BL=empty,
        history_age_BL=empty,
        position_B=torch.zeros(labels.numel()),
        labels={"t": labels},
        observed={"t": observed},
    )


def _labels(task):
    drawn = torch.rand(ROWS, generator=torch.Generator().manual_seed(0))
    return (drawn > 0.5).float() if task.is_binary else task.low + drawn * (task.high - task.low)


def _loss(task, logits, labels, observed):
    return task_losses({"t": logits}, _batch(labels, observed), [task])["t"]


def test_unobserved_rows_change_neither_loss_nor_gradient(task):
    observed = torch.arange(ROWS) % 3 == 0
    results = []
    for junk in (0.0, 1e6, -1e6):
        logits = torch.linspace(-2, 2, ROWS).requires_grad_()
        labels = torch.where(observed, _labels(task), junk)
        loss = _loss(task, logits, labels, observed)
        loss.backward()
        results.append((loss.item(), logits.grad.clone()))
        assert (logits.grad[~observed] == 0).all()
        assert (logits.grad[observed] != 0).all()
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        assert torch.equal(gradient, results[0][1])


def test_the_mean_is_over_observed_rows(task):
    logits, labels = torch.linspace(-2, 2, ROWS), _labels(task)
    few = torch.arange(ROWS) < 4
    alone = HEAD_KINDS[task.head].loss(logits[:4], labels[:4], task).mean()
    torch.testing.assert_close(_loss(task, logits, labels, few), alone)


def test_a_batch_without_any_observation_gives_zero_and_no_gradient(task):
    logits = torch.ones(ROWS, requires_grad=True)
    loss = _loss(task, logits, torch.zeros(ROWS), torch.zeros(ROWS, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_predictions_rise_with_the_logit_in_the_tasks_unit(task):
    predictions = HEAD_KINDS[task.head].predict(torch.linspace(-3, 3, 50), task)
    assert (predictions.diff() > 0).all()
    middle = HEAD_KINDS[task.head].predict(torch.zeros(1), task).item()
    assert middle == (0.5 if task.is_binary else 3.0)
    if task.is_binary:
        assert ((predictions > 0) & (predictions < 1)).all()


def test_the_loss_is_least_at_the_label(task):
    label = torch.full((ROWS,), 0.3 if task.is_binary else 3.7)
    logits = torch.zeros(ROWS, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        HEAD_KINDS[task.head].loss(logits, label, task).sum().backward()
        optimiser.step()
    torch.testing.assert_close(HEAD_KINDS[task.head].predict(logits.detach(), task), label, atol=1e-3, rtol=0)


def test_extreme_logits_have_finite_losses_and_gradients(task):
    logits = torch.tensor([-1e4, -100.0, 100.0, 1e4], requires_grad=True)
    labels = torch.tensor([1.0, 1.0, 1.0, 1.0]) if task.is_binary else torch.full((4,), 3.0)
    loss = HEAD_KINDS[task.head].loss(logits, labels, task)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


def test_every_kind_of_the_config_has_functions():
    from typing import get_args

    from recsys.tasks import HeadKind

    assert set(HEAD_KINDS) == set(get_args(HeadKind))


def test_each_task_has_a_head_of_its_own(task):
    other = task.model_copy(update={"name": "other"})
    heads = Heads([task, other], 4, 8)
    hidden = {"t": torch.ones(3, 4), "other": torch.ones(3, 4)}
    logits = heads(hidden, {n: torch.zeros(3) for n in hidden})
    assert list(logits) == ["t", "other"]
    logits["t"].sum().backward()
    assert all(p.grad is None for p in heads.heads["other"].parameters())
