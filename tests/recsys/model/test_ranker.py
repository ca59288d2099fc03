"""The ranker: every part is used, position is for training alone, halves join to the same numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from features.encode import Encoder
from recsys.batch import HistoryIndex
from recsys.model.history import NUM_AGES
from recsys.model.ranker import MAX_POSITION
from recsys.model.sequence import ENCODERS
from training.build_model import build_model
from training.data import Batcher, BatchSettings, encode_day, text_by_number
from training.objective import task_losses


@pytest.fixture
def made(shop_chain, config, trained):
    """Give a fresh model, its tables, a batcher without shuffling, and a encoded."""
    return _make(shop_chain, config, trained.state)


def _make(chain, config, state, **settings):
    torch.manual_seed(0)
    ranker, tables = build_model(config, state, None)
    encoder = Encoder.from_config(config, state)
    encoded = encode_day(encoder, chain.labelled_for(config.tasks), 3, config.tasks)
    kept = {"batch_size": 200, "history_length": config.features.history_length, "lag_ms": 5000, **settings}
    batcher = Batcher(encoder, text_by_number(encoder, chain[3].table("items")), BatchSettings(**kept))
    return ranker, tables, batcher, encoded


def _batch(batcher, encoded):
    return next(batcher.batches(encoded, np.random.default_rng(0)))


def test_every_parameter_and_every_table_is_trained(made):
    ranker, tables, batcher, encoded = made
    batch = _batch(batcher, encoded)
    rows = tables.lookup(batch.rows)
    logits, user, item = ranker(batch, rows)
    loss = sum(v.square().sum() for v in logits.values())
    loss = (
        loss
        + (
            (user.embedding_BD - item.embedding_BD).abs() * torch.arange(1, user.embedding_BD.shape[1] + 1)
        ).sum()
    )
    loss.backward()
    idle = [n for n, p in ranker.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    assert [n for n, leaf in rows.items() if leaf.grad is None or not leaf.grad.any()] == []


def test_columns_of_numbers_need_no_gradient(made):
    """What is learned gets the gradient that it gets when the trunk gives one for every column."""
    ranker, tables, batcher, encoded = made
    batch, found = _batch(batcher, encoded), []
    for learned in (ranker.trunk.learned, None):
        ranker.trunk.learned = learned
        ranker.zero_grad()
        rows = tables.lookup(batch.rows)
        sum(v.square().sum() for v in ranker(batch, rows)[0].values()).backward()
        found.append({n: t.grad for n, t in [*ranker.named_parameters(), *rows.items()]})
    torch.testing.assert_close(*found)


def test_embeddings_are_unit_vectors(made):
    ranker, tables, batcher, encoded = made
    batch = _batch(batcher, encoded)
    _, user, item = ranker(batch, tables.lookup(batch.rows))
    for side in (user, item):
        torch.testing.assert_close(side.embedding_BD.norm(dim=1), torch.ones(batch.size))


def test_position_moves_logits_in_training_only(made):
    ranker, tables, batcher, encoded = made
    with torch.no_grad():
        ranker.position.weight[1:] = torch.randn(MAX_POSITION, len(ranker.specs))
    batch = _batch(batcher, encoded)
    rows = tables.lookup(batch.rows)
    moved = replace(batch, position_B=batch.position_B % 7 + 1)
    assert not torch.equal(ranker(batch, rows)[0]["click"], ranker(moved, rows)[0]["click"])
    far, further = (
        replace(batch, position_B=torch.full_like(batch.position_B, p)) for p in (MAX_POSITION, 10**6)
    )
    assert torch.equal(ranker(far, rows)[0]["click"], ranker(further, rows)[0]["click"])
    unknown = replace(batch, position_B=torch.zeros_like(batch.position_B))
    user, item = ranker(batch, rows)[1:]
    context = ranker.context(ranker.looked_up(batch, rows, "context"), batch.context_numbers_BF)
    served = ranker.logits(user, item, context, batch.cross_numbers_BF)
    torch.testing.assert_close(served["click"], ranker(unknown, rows)[0]["click"])


def test_the_draw_of_negatives_moves_heads_without_a_parent_in_training_alone(made):
    ranker, tables, batcher, encoded = made
    ranker.eval()
    added = np.linspace(-2, 2, encoded.size, dtype=np.float32)
    plain, drawn = (_batch(batcher, replace(encoded, thinned=of)) for of in (None, added))
    rows = tables.lookup(plain.rows)
    (before, *_), (after, user, item) = (ranker(batch, rows) for batch in (plain, drawn))
    thinned_B = torch.from_numpy(added[: plain.size])
    assert plain.thinned_B is None
    torch.testing.assert_close(after["click"], before["click"] + thinned_B)
    torch.testing.assert_close(after["rating"], before["rating"])
    given = [logits["purchase"].sigmoid() / logits["click"].sigmoid() for logits in (before, after)]
    torch.testing.assert_close(*given)  # of what was clicked all is kept
    context = ranker.context(ranker.looked_up(drawn, rows, "context"), drawn.context_numbers_BF)
    served = ranker.logits(user, item, context, drawn.cross_numbers_BF)
    torch.testing.assert_close(served["click"], before["click"] - ranker._bias(plain)["click"])


def test_position_bias_can_be_off(shop_chain, make_config, trained):
    ranker, tables, batcher, encoded = _make(
        shop_chain, make_config(model={"position_bias": False}), trained.state
    )
    with torch.no_grad():
        ranker.position.weight[1:] = 3.0
    batch = _batch(batcher, encoded)
    rows = tables.lookup(batch.rows)
    moved = replace(batch, position_B=batch.position_B + 1)
    assert torch.equal(ranker(batch, rows)[0]["click"], ranker(moved, rows)[0]["click"])


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_rows_that_share_a_sequence_have_the_state_of_their_own_events(
    shop_chain, make_config, trained, encoder
):
    """A batch of a day, whose histories slide over their full length, against each row alone."""
    config = make_config(model={"history": {"encoder": encoder, "dim": 16, "num_layers": 2}})
    made = _make(shop_chain, config, trained.state, sequences=True, history_length=5)
    ranker, tables, batcher, encoded = made
    ranker.eval()
    sequences = _batch(batcher, encoded).history.sequences
    assert sequences.item_S.numel() < 0.8 * sequences.event_E.numel(), "rows share sequences"
    with torch.no_grad():
        batch = _batch(batcher, encoded)
        logits, user, _ = ranker(batch, tables.lookup(batch.rows))
        for row in range(0, batch.size, 13):
            alone = batcher.batch(encoded, np.array([row]), np.random.default_rng(0))
            own, one, _ = ranker(alone, tables.lookup(alone.rows))
            torch.testing.assert_close(one.embedding_BD[0], user.embedding_BD[row], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(own["click"][0], logits["click"][row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_every_parameter_of_an_encoder_is_trained(shop_chain, make_config, trained, encoder):
    config = make_config(model={"history": {"encoder": encoder, "dim": 16, "dropout": 0.0}})
    ranker, tables, batcher, encoded = _make(shop_chain, config, trained.state, sequences=True)
    batch = _batch(batcher, encoded)
    logits, user, _ = ranker(batch, tables.lookup(batch.rows))
    (sum(v.square().sum() for v in logits.values()) + user.embedding_BD[:, 0].sum()).backward()
    idle = [n for n, p in ranker.history.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def _of_one_user(batch, chosen):
    """Give a batch's user inputs with every row that of one user."""
    history, every = batch.history, torch.full((batch.size,), chosen)
    events = slice(*history.start_B[chosen : chosen + 2].tolist())
    parts = {n: getattr(history, n)[events].repeat(batch.size) for n in ("item_E", "kind_E", "age_E")}
    length = events.stop - events.start
    owner_E = torch.arange(batch.size).repeat_interleave(length)
    by_item_E = parts["item_E"].argsort()
    index = {name: places[every] for name, places in batch.index.items()}
    return replace(
        batch,
        index=index,
        user_numbers_BF=batch.user_numbers_BF[every],
        history=HistoryIndex(
            **parts, owner_E=owner_E, start_B=torch.arange(batch.size) * length, by_item_E=by_item_E
        ),
    )


def test_one_user_for_many_items_is_that_user_repeated(made):
    ranker, tables, batcher, encoded = made
    ranker.eval()
    batch = _batch(batcher, encoded)
    rows = tables.lookup(batch.rows)
    with torch.no_grad():
        _, user, item = ranker(batch, rows)
        context = ranker.context(ranker.looked_up(batch, rows, "context"), batch.context_numbers_BF)
        chosen = int(batch.history.start_B.diff().argmax())
        cross = batch.cross_numbers_BF
        alone = ranker.logits(user.one(chosen), item, context[chosen : chosen + 1], cross)
        many = ranker.user_side(_of_one_user(batch, chosen), rows)
        repeated = ranker.logits(many, item, context[chosen : chosen + 1].expand(batch.size, -1), cross)
    for task in alone:
        torch.testing.assert_close(alone[task], repeated[task], atol=1e-5, rtol=1e-5)


def test_history_matters(made):
    ranker, tables, batcher, encoded = made
    batch = _batch(batcher, encoded)
    rows = tables.lookup(batch.rows)
    none = replace(batch, history=HistoryIndex.empty(batch.size))
    changed = (ranker(batch, rows)[0]["click"] - ranker(none, rows)[0]["click"]).abs() > 1e-7
    has = torch.bincount(ranker(batch, rows)[1].history.lists.owner_E, minlength=batch.size) > 0
    assert changed[has].float().mean() > 0.95
    assert not changed[~has].any()


@pytest.mark.parametrize(
    "sections",
    [
        {"features": {"user_id_dim": 0}},
        {"features": {"text_dim": 0}},
        {"features": {"history_length": 0}},
        {"features": {"history_kinds": []}},
        {"features": {"cross_user_by": []}},
        {"features": {"live_counters": False}},
        {"feature": []},
        {"feature": [{"name": "country", "entity": "user", "kind": "multi_hot"}]},
        {"feature": [{"name": "country", "entity": "user", "kind": "multi_hot", "dim": 2}]},
        {"model": {"trunk": {"name": "shared_bottom", "hidden": [8]}}},
    ],
)
def test_parts_are_optional(shop_log, make_config, tmp_path, sections):
    from features.build import build_snapshots
    from features.fit import FitFrames, fit_encoder
    from recsys.stages import Stages

    config = make_config(**sections)
    chain = build_snapshots(shop_log, shop_log.days("impressions")[3], config, Stages(tmp_path))
    state = fit_encoder(config, FitFrames.read(chain[3], [chain[3]], config), None, 0)
    ranker, tables, batcher, encoded = _make(chain, config, state)
    batch = _batch(batcher, encoded)
    logits, _, _ = ranker(batch, tables.lookup(batch.rows))
    assert all(torch.isfinite(v).all() and v.shape == (batch.size,) for v in logits.values())


def test_a_debiased_task_learns_who_is_asked_apart_from_everything_else(shop_chain, make_config, trained):
    tasks = [t.model_dump(mode="json") for t in make_config().tasks]
    tasks[2]["debias"] = "ips"
    torch.manual_seed(0)
    ranker, tables, batcher, encoded = _make(shop_chain, make_config(task=tasks), trained.state)
    batch = _batch(batcher, encoded)
    rows = tables.lookup(batch.rows)
    logits, user, item = ranker(batch, rows)
    assert list(logits) == ["click", "purchase", "rating", "rating:observed"]
    logits["rating:observed"].sum().backward()
    touched = {n for n, p in ranker.named_parameters() if p.grad is not None}
    assert touched == {"observing.rating.weight", "observing.rating.bias"}
    assert all(leaf.grad is None for leaf in rows.values())
    context = ranker.context(ranker.looked_up(batch, rows, "context"), batch.context_numbers_BF)
    served = ranker.logits(user, item, context, batch.cross_numbers_BF)
    assert list(served) == ["click", "purchase", "rating"], "not when serving"


def test_gates_can_be_read_on_real_inputs(made):
    ranker, tables, batcher, encoded = made
    batch = _batch(batcher, encoded)
    _, user, item = ranker(batch, rows := tables.lookup(batch.rows))
    context = ranker.context(ranker.looked_up(batch, rows, "context"), batch.context_numbers_BF)
    x_BI = ranker.trunk_input(user, item, context, batch.cross_numbers_BF)
    gates = ranker.trunk.gate_weights(x_BI)
    assert {task: tuple(w.shape) for task, w in gates.items()} == dict.fromkeys(gates, (batch.size, 3))
    assert list(gates) == [t.name for t in ranker.specs]


def test_an_age_never_trained_reads_as_the_oldest_trained(made):
    ranker, tables, batcher, encoded = made
    batch = _batch(batcher, encoded)
    rows = tables.lookup(batch.rows)
    oldest = int(batch.history.age_E.max())
    assert oldest < NUM_AGES - 2
    optimiser = torch.optim.AdamW(ranker.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        ranker(batch, rows)[0]["click"].square().sum().backward()
        optimiser.step()
    ranker.eval()
    ages = batch.history.age_E
    at = {
        age: ranker(replace(batch, history=replace(batch.history, age_E=torch.full_like(ages, age))), rows)[
            0
        ]["click"]
        for age in (0, oldest, oldest + 2)
    }
    assert torch.equal(at[oldest], at[oldest + 2])
    assert not torch.equal(at[0], at[oldest]), "ages that were trained differ"


def test_members_learn_alone_and_are_served_as_their_mean(shop_chain, make_config, trained):
    config = make_config(model={"ensemble_size": 3})
    names = tuple(task.name for task in config.tasks)
    ranker, tables, batcher, encoded = _make(shop_chain, config, trained.state, tasks=names)
    ranker.eval()
    batch = _batch(batcher, encoded)
    rows = tables.lookup(batch.rows)
    logits, user, item = ranker(batch, rows)
    context = ranker.context(ranker.looked_up(batch, rows, "context"), batch.context_numbers_BF)
    served = ranker.logits(user, item, context, batch.cross_numbers_BF)
    for task in ranker.specs:
        each = logits[task.name].view(3, batch.size)
        assert not torch.equal(each[0], each[1]), "members start apart"
        bias = ranker._bias(batch)[task.name]
        if task.parent is None:
            torch.testing.assert_close(served[task.name], each.mean(dim=0) - bias)
    losses = task_losses(logits, batch, ranker.specs)
    for task in ranker.specs:
        alone = [
            task_losses(logits | {task.name: one}, batch, [task])[task.name]
            for one in logits[task.name].view(3, batch.size)
        ]
        torch.testing.assert_close(losses[task.name], torch.stack(alone).mean())
    sum(losses.values()).backward()
    for member in ranker.others:
        assert all(p.grad is not None and p.grad.any() for p in member.heads.parameters())


def test_one_member_is_the_model_without_members(shop_chain, config, make_config, trained):
    plain, _, _, _ = _make(shop_chain, config, trained.state)
    many, _, _, _ = _make(shop_chain, make_config(model={"ensemble_size": 2}), trained.state)
    own = plain.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in many.state_dict().items() if name in own)
    assert {n.split(".")[0] for n in many.state_dict() if n not in own} == {"others"}
