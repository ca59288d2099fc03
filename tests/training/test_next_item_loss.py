"""The loss of what came next: at every event of the day, against the plain form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from features.encode import Encoder
from training.build_model import build_model
from training.data import Batcher, encode_day, text_by_number
from training.fit_inputs import batch_settings
from training.objective import next_item_loss
from training.train import fit_settings
from training.trainer.losses import all_losses
from training.trainer.whole_batch import whole_batch
from training.warm_start import Previous, carry_over

_OLD = ("query.weight", "kind.weight", "age.steps_ND", "event_score.weight", "event_score.bias")
"""Of a history that reads no sequences: what has the same shape in one that does."""


@pytest.fixture
def made(shop_chain, make_config, trained):
    config = make_config(model={"history": {"encoder": "sasrec", "dim": 16}})
    torch.manual_seed(0)
    ranker, tables = build_model(config, trained.state, None)
    encoder = Encoder.from_config(config, trained.state)
    encoded = encode_day(encoder, shop_chain.labelled_for(config.tasks), 3, config.tasks)
    settings = replace(batch_settings(config, config.tasks), num_uniform=40, id_dropout=0.0)
    batcher = Batcher(encoder, text_by_number(encoder, shop_chain[3].table("items")), settings)
    share = np.random.default_rng(0).random(encoded.items.ids.shape[0]).astype(np.float32) / 100
    batch = batcher.batch(encoded, np.arange(300), np.random.default_rng(0), share)
    return ranker.eval(), tables, batch, config


def test_it_is_cross_entropy_over_next_items_and_drawn_ones(made):
    ranker, tables, batch, _ = made
    rows = tables.lookup(batch.rows)
    _, user, _ = ranker(batch, rows)
    found = next_item_loss(ranker, batch, rows, user, 0.1, whole_batch(batch, ()))
    of, drawn = batch.history.sequences.next_items, batch.negatives
    assert of.event_P.numel() > 5
    parts = ((of, of.numbers_TF, of.text_TT), (drawn, drawn.numbers_MF, drawn.text_MT))
    vectors = torch.cat(
        [ranker.item_side(ranker.looked_up(x, rows, "item"), n, t).embedding_BD for x, n, t in parts]
    )
    items = torch.cat([of.item_T, drawn.item_M])
    num, shares = of.event_P.numel(), torch.cat([of.share_T, drawn.share_M])
    copies = 1 - (1 - shares) ** num + drawn.uniform
    total = 0.0
    for event, place in zip(of.event_P, of.place_P, strict=True):
        of_history = ranker.user_factor.weight[:, -ranker.history.query.out_features :]
        state = of_history @ user.history.newest_SA[event]
        logits = vectors @ functional.normalize(state, dim=0) / 0.1 - copies.log()
        other = (items == of.item_T[place]) & (torch.arange(items.numel()) != place)
        total += functional.cross_entropy(logits.masked_fill(other, -torch.inf), place)
    torch.testing.assert_close(found, total / num)


def test_the_item_and_the_event_after_which_it_came_are_the_logs(made):
    _, _, batch, _ = made
    of = batch.history.sequences
    after, came = of.next_items.event_P + 1, of.next_items
    numbers = batch.rows["item_id"]
    assert torch.equal(numbers[of.item_S[after]], numbers[came.index["item_id"][came.place_P]])
    owner = torch.repeat_interleave(torch.arange(of.count_C.numel()), of.count_C)
    assert torch.equal(owner[after], owner[came.event_P]), "of one sequence"


def test_products_may_be_in_bfloat16(made):
    ranker, tables, batch, config = made
    settings = replace(fit_settings(config, 1, warm=False), next_item_weight=1.0)
    found = []
    for bf16 in (False, True):
        rows, whole = tables.lookup(batch.rows), whole_batch(batch, config.tasks)
        losses, _ = all_losses(ranker, batch, config.tasks, replace(settings, bf16=bf16), rows, whole)
        losses["retrieval"].backward()
        found.append(losses["retrieval"])
    torch.testing.assert_close(found[1], found[0], rtol=0.02, atol=0.02)


def test_a_night_goes_on_from_weights_without_sequences(made, trained, config):
    """What both have is carried over; the encoder and what reads its states begin anew, and are named."""
    ranker, tables, _, changed = made
    previous = Previous.same(trained.weights(), trained.ranker, trained.state, config)
    carried = carry_over(ranker, tables, trained.state, changed, previous, None)
    own, now = trained.ranker.state_dict(), ranker.state_dict()
    for name in ("item_factor.weight", "user_tower.0.0.weight", "history.kind.weight"):
        assert torch.equal(now[name], own[name]), name
    new = {f"history.{name}" for name, _ in ranker.history.named_parameters() if name not in _OLD}
    assert set(carried.fresh) == new


def test_it_trains_encoder_and_items_and_stands_in_the_retrieval_loss(made):
    ranker, tables, batch, config = made
    values = {}
    for weight in (0.0, 0.5):
        settings = replace(fit_settings(config, 1, warm=False), next_item_weight=weight)
        ranker.zero_grad()
        rows = tables.lookup(batch.rows)
        losses, _ = all_losses(ranker, batch, config.tasks, settings, rows, whole_batch(batch, config.tasks))
        values[weight] = losses["retrieval"]
    rows = tables.lookup(batch.rows)
    after = next_item_loss(ranker, batch, rows, ranker(batch, rows)[1], 0.1, whole_batch(batch, ()))
    torch.testing.assert_close(values[0.5] - values[0.0], 0.5 * after)
    after.backward()
    for parameter in (*ranker.history.encoder.parameters(), ranker.item_factor.weight):
        assert parameter.grad.abs().sum() > 0
