"""Every head kind and loss: ignores what was not observed, is trained by what was, predicts in its unit."""

import numpy as np
import pytest
import torch

from recsys.batch import Batch, HistoryIndex
from recsys.head_kinds import HEAD_KINDS, UNCALIBRATED
from recsys.model.head_functions import build_link, head_loss, predict
from recsys.model.heads import Heads
from recsys.resolve import resolve
from recsys.tasks import RANGE_OPTIONS, TaskSpec
from training.objective import task_losses

ROWS = 12


@pytest.fixture(params=[(kind, loss) for kind, f in HEAD_KINDS.items() for loss in f.losses], ids="-".join)
def task(request) -> TaskSpec:
    kind, loss = request.param
    return TaskSpec(name="t", feedback="f", head=kind, loss=loss, window="1h", low=1.0, high=5.0)


def _logits(task, scores):
    """Make logits of scores as a fresh head does."""
    return build_link(task)(scores)


def _batch(labels, observed):
    empty = torch.zeros(0)
    return Batch(
        rows={},
        index={},
        item_text_UT=empty,
        user_numbers_BF=empty,
        item_numbers_BF=empty,
        context_numbers_BF=empty,
        cross_numbers_BF=empty,
        item_text_BT=empty,
        history=HistoryIndex.empty(labels.numel()),
        position_B=torch.zeros(labels.numel()),
        labels={"t": labels},
        observed={"t": observed},
    )


def _labels(task):
    drawn = torch.rand(ROWS, generator=torch.Generator().manual_seed(0))
    return (drawn > 0.5).float() if task.kind.probability else task.low + drawn * (task.high - task.low)


def _loss(task, scores, labels, observed):
    return task_losses({"t": _logits(task, scores)}, _batch(labels, observed), [task])["t"]


def test_unobserved_rows_change_neither_loss_nor_gradient(task):
    observed = torch.arange(ROWS) % 3 == 0
    results = []
    for junk in (0.0, 1e6, -1e6):
        scores = torch.linspace(-2, 2, ROWS).requires_grad_()
        labels = torch.where(observed, _labels(task), junk)
        loss = _loss(task, scores, labels, observed)
        loss.backward()
        results.append((loss.item(), scores.grad.clone()))
        assert (scores.grad[~observed] == 0).all()
        assert (scores.grad[observed] != 0).all()
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        assert torch.equal(gradient, results[0][1])


def test_the_mean_is_over_observed_rows(task):
    scores, labels = torch.linspace(-2, 2, ROWS), _labels(task)
    few = torch.arange(ROWS) < 4
    alone = head_loss(_logits(task, scores[:4]), labels[:4], task).mean()
    torch.testing.assert_close(_loss(task, scores, labels, few), alone)


def test_a_batch_without_any_observation_gives_zero_and_no_gradient(task):
    scores = torch.ones(ROWS, requires_grad=True)
    loss = _loss(task, scores, torch.zeros(ROWS), torch.zeros(ROWS, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not scores.grad.any()


def test_predictions_rise_with_the_score_in_the_tasks_unit(task):
    predictions = predict(_logits(task, torch.linspace(-3, 3, 50)).detach().numpy(), task)
    assert predictions.shape == (50,)
    assert (np.diff(predictions) > 0).all()
    middle = predict(_logits(task, torch.zeros(1)).detach().numpy(), task).item()
    assert middle == pytest.approx(0.5 if task.kind.probability else 3.0)
    low, high = (0, 1) if task.kind.probability else (task.low, task.high)
    if task.kind.probability or task.kind.levels:
        assert ((predictions > low) & (predictions < high)).all()


def test_the_loss_is_least_at_the_label(task):
    """A score and the link's own parameters, trained on one label, predict it."""
    soft = task.loss_name == "bce"
    label = torch.full((ROWS,), 0.3 if soft else 1.0 if task.kind.probability else 3.7)
    link, scores = build_link(task), torch.zeros(ROWS, requires_grad=True)
    optimiser = torch.optim.Adam([scores, *link.parameters()], lr=0.1)
    for step in range(600):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 600)
        optimiser.zero_grad()
        head_loss(link(scores), label, task).sum().backward()
        optimiser.step()
    found = torch.from_numpy(predict(link(scores).detach().numpy(), task))
    torch.testing.assert_close(found, label, atol=0.1 if task.loss_name == "focal" else 5e-3, rtol=0)


def test_extreme_scores_have_finite_losses_and_gradients(task):
    scores = torch.tensor([-1e4, -100.0, 100.0, 1e4], requires_grad=True)
    for value in (0.0, 1.0) if task.kind.probability else (1.0, 2.5, 3.0, 5.0):
        loss = head_loss(_logits(task, scores), torch.full((4,), value), task)
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("kind", HEAD_KINDS.values(), ids=HEAD_KINDS)
def test_an_entry_names_functions_that_are_there_and_fits_together(kind):
    for name in (kind.link, kind.predict, *kind.losses.values(), *kind.calibrators.values()):
        assert callable(resolve(name))
    assert UNCALIBRATED in kind.calibrators
    assert set(kind.options) <= set(RANGE_OPTIONS)
    if kind.label == "value":
        assert {"low", "high"} <= set(kind.options), "labels are clipped to the range"
    if "value" in kind.label or kind.aggregate == "mean" or kind.levels:
        assert "step" in kind.options
    assert not (kind.probability and kind.label == "value")


def test_each_task_has_a_head_of_its_own(task):
    torch.manual_seed(0)
    other = task.model_copy(update={"name": "other"})
    heads = Heads([task, other], 4, 8)
    hidden = {"t": torch.ones(3, 4), "other": torch.ones(3, 4)}
    logits = heads(hidden, {n: torch.zeros(3) for n in hidden})
    assert list(logits) == ["t", "other"]
    logits["t"].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in heads.own_parameters("t"))
    assert all(p.grad is None for p in heads.heads["other"].parameters())
