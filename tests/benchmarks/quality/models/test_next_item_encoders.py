"""Encoders trained on the next item: which positions, which candidates, and the start of the rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

import benchmarks.quality.models.next_item_encoders as encoders
from benchmarks.quality.models.next_item_encoders import (
    SETTINGS,
    NextItem,
    Training,
    choose_epochs,
    fit_encoder,
    spectral_rows,
    step_loss,
    steps_of,
)
from benchmarks.quality.models.next_items import Part
from recsys.item_item.histories import Histories
from recsys.model.sequence.encoder import EncoderShape

ITEMS = 12
SETTING = replace(
    SETTINGS["sasrec"], shape=EncoderShape(dim=8, num_layers=1, dropout=0.0), users=2, most_events=4, epochs=2
)


@pytest.fixture
def part():
    users = np.array([0] * 7 + [1] * 3 + [2] + [3] * 2)
    items = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0])
    known = Histories.of(users, items, num_users=5)
    return Part(
        known=known, users=np.array([0, 1]), wanted=np.array([7, 2]), num_items=ITEMS, attributes=None
    )


def test_an_epoch_has_of_every_user_as_many_positions_as_a_state_sees(part):
    random, met = np.random.default_rng(0), set()
    for _ in range(20):
        steps = list(steps_of(part, SETTING, random))
        assert sorted(len(step.lists.count_B) for step in steps) == [1, 2]
        pairs = sorted(p for s in steps for p in zip(s.items_E.tolist(), s.next_E.tolist(), strict=True))
        assert pairs[4:] == [(7, 8), (8, 9), (11, 0)]
        first = pairs[0][0]
        assert pairs[:4] == [(item, item + 1) for item in range(first, first + 4)]
        met.add(first)
    assert met == {0, 1, 2}, "in time all positions of a long sequence are learned"


def test_a_small_set_is_gone_through_more_often_up_to_a_limit(part, monkeypatch):
    assert SETTING.positions(part) == 4 + 2 + 0 + 1
    assert SETTING.planned(part) == encoders.MOST_EPOCHS
    monkeypatch.setattr(encoders, "POSITIONS", 7 * 30 - 1)
    assert SETTING.planned(part) == 30
    monkeypatch.setattr(encoders, "POSITIONS", 7)
    assert SETTING.planned(part) == SETTING.epochs


def test_with_all_items_drawn_the_loss_is_softmax_without_the_users_own_items(part):
    model = NextItem(part, SETTING, 0).eval()
    (step,) = steps_of(part, replace(SETTING, users=9), np.random.default_rng(1))
    shares = torch.full((ITEMS,), 1 / ITEMS)
    found = step_loss(model, step, SETTING, shares, torch.arange(ITEMS))
    vectors = model.vectors(torch.arange(ITEMS))
    logits = model.states(vectors[step.items_E], step.lists) @ vectors.T / SETTING.temperature
    owner = torch.repeat_interleave(torch.arange(len(step.lists.count_B)), step.lists.count_B)
    own = torch.zeros(len(step.lists.count_B), ITEMS, dtype=torch.bool)
    own[owner, step.items_E] = own[owner, step.next_E] = True
    hidden = own[owner].scatter(1, step.next_E[:, None], value=False)
    plain = functional.cross_entropy(logits.masked_fill(hidden, -torch.inf), step.next_E)
    torch.testing.assert_close(found, plain)


def test_a_candidate_stands_for_as_many_as_its_chance_says(part):
    """Averaged over draws, the sum of exponentials is that of all items."""
    model = NextItem(part, SETTING, 0).eval()
    (step,) = steps_of(part, replace(SETTING, users=9), np.random.default_rng(1))
    generator, mild = torch.Generator().manual_seed(0), replace(SETTING, temperature=5.0)
    always = (torch.bincount(step.next_E, minlength=ITEMS) > 0).float()
    every = torch.arange(ITEMS)
    with torch.no_grad():
        exact = step_loss(model, step, mild, always, every)
        drawn = [torch.randperm(ITEMS, generator=generator)[:6] for _ in range(100)]
        sampled = torch.stack([step_loss(model, step, mild, always, some) for some in drawn])
    assert sampled.mean().item() == pytest.approx(exact.item(), abs=0.02)


def test_rows_begin_where_items_that_go_together_are_near(part):
    rows = spectral_rows(part, 8, 0, attributes=False)
    assert rows.shape == (ITEMS, 8)
    assert rows[2] @ rows[3] > rows[2] @ rows[8] + 0.5


def test_training_is_the_same_again_and_leaves_torchs_random_numbers_alone(part):
    before = torch.get_rng_state()
    dropping = replace(SETTING, shape=replace(SETTING.shape, dropout=0.5))
    like = Training(part, dropping, 3, planned=1).fitted(1)
    one, other = (fit_encoder(part, like, 3).scorer(part)(np.array([0, 1, 4])) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert not one[2].any(), "a user without events"
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("positions", "between"), [(7, 1), (7 * 12, 3)])
def test_the_best_epoch_is_kept_of_those_looked_at(part, monkeypatch, positions, between):
    monkeypatch.setattr(encoders, "POSITIONS", positions)
    kept = choose_epochs(part, replace(SETTING, epochs=4, patience=1), 0)
    assert kept.planned == 4 * between
    assert kept.epochs in range(between, kept.planned + 1, between)
    users = np.array([0, 1])
    np.testing.assert_allclose(
        kept.scorer(part)(users), fit_encoder(part, kept, 0).scorer(part)(users), rtol=1e-5
    )
