"""Candidates of a request, scored with the user's part computed once, have the logits of the plain ranker."""

import copy
import dataclasses

import pytest
import torch

from recsys.batch import BagIndex, Batch, HistoryIndex, SequenceIndex
from recsys.config import ModelConfig
from recsys.errors import ConfigError
from recsys.model.candidate_network import CandidateNetwork
from recsys.model.input_sizes import Inputs
from recsys.model.joint_heads import JointHeads
from recsys.model.layers import mlp
from recsys.model.one_user import OneUser, UserTensors
from recsys.model.ranker import ItemSide, Ranker
from recsys.model.sequence import ENCODERS
from recsys.model.trunks import TRUNKS
from recsys.model.trunks.trunk import Trunk

NUM, EVENTS = 7, 4
INPUTS = Inputs(
    user_tables=(("user_id", "user_id", 3), ("country", "country", 2)),
    item_tables=(("item_id", "item_id", 4), ("category", "category", 2)),
    context_tables=(("device", "device", 2),),
    user_bags=(("tags", "tags", 2),),
    item_bags=(),
    user_numbers=(("age", 3),),
    item_numbers=(("price", 2),),
    context_numbers=(("live", 1),),
    cross_numbers=(("by_category", 2), ("by_maker", 1)),
    history_kinds=(("click", 1), ("rating", 2)),
    text_dim=0,
)

SIZES = {"embedding_dim": 5, "attention_dim": 3, "tower_hidden": 8, "head_hidden": 4}
SMALL = ModelConfig(trunk={"num_experts": 2, "hidden": (6, 5)}, **SIZES)


@pytest.fixture(scope="module")
def tasks(make_config):
    levels = {"name": "stars", "feedback": "stars", "head": "ordinal", "low": 1, "high": 4, "window": "1d"}
    return make_config(
        task=[
            {"name": "click", "feedback": "click", "head": "binary", "window": "1h"},
            {"name": "buy", "feedback": "buy", "head": "binary", "window": "1h", "parent": "click"},
            {**levels, "space": "observed", "transfer_from": "click"},
        ],
        features={"history_kinds": ["click"]},
    ).tasks


@pytest.fixture(params=[*sorted(TRUNKS), "ensemble"])
def made(request, tasks):
    """Give a ranker with every parameter random."""
    members = 3 if request.param == "ensemble" else 1
    trunk = {"name": "mmoe" if members > 1 else request.param, "num_experts": 3, "hidden": (6, 5)}
    torch.manual_seed(0)
    ranker = Ranker(INPUTS, tasks, ModelConfig(trunk=trunk, ensemble_size=members, **SIZES))
    return _randomised(ranker)


def _randomised(ranker):
    for parameter in ranker.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        ranker.history.kind.weight[0] = 0  # no kind
    return ranker.eval()


def _user(ranker, events):
    """Make one user, for both paths."""
    num_id = sum(dim for name, _, dim in ranker.inputs.user_tables)
    own_1U = torch.randn(1, num_id + 2 + 3)
    items_LD = torch.randn(events, 4)
    kinds, ages = torch.randint(1, 4, (events,)), torch.randint(0, 20, (events,))
    minutes = torch.randint(0, 9_000, (events,)).sort(descending=True).values
    each, none = torch.arange(events), torch.zeros(1, 0)
    zero = torch.zeros(1, dtype=torch.int64)
    tables = ranker.inputs.user_tables
    cuts = own_1U.split([*(dim for *_, dim in tables), 2, 3], dim=1)
    batch = Batch(
        rows={},
        index={name: zero for name, *_ in tables},
        bags={"tags": BagIndex(zero, zero)},
        item_text_UT=torch.zeros(events, 0),
        user_numbers_BF=cuts[-1],
        item_numbers_BF=none,
        context_numbers_BF=none,
        cross_numbers_BF=none,
        item_text_BT=none,
        history=HistoryIndex(
            item_E=each,
            kind_E=kinds,
            age_E=ages,
            owner_E=torch.zeros_like(each),
            start_B=zero,
            by_item_E=each,
            sequences=SequenceIndex(
                item_S=each.flip(0),
                kind_S=kinds.flip(0),
                minute_S=minutes.flip(0),
                count_C=torch.tensor([events])[: min(1, events)],
                event_E=each.flip(0),
                by_event_E=each.flip(0),
            ),
        ),
        position_B=zero,
        labels={},
        observed={},
    )
    names = [vocabulary for _, vocabulary, _ in tables]
    rows = {"item_id": items_LD, "tags": cuts[-2], **dict(zip(names, cuts[:-2], strict=True))}
    return (
        batch,
        rows,
        UserTensors(own_1U=own_1U, items_LD=items_LD, kinds_L=kinds, ages_L=ages, minutes_L=minutes),
    )


@torch.no_grad()
def _compare(ranker, widths=(2, 1), events=EVENTS, num=NUM, close=1e-5, past=0):
    batch, rows, tensors = _user(ranker, events)
    plain, found = ranker.user_side(batch, rows).one(0), OneUser(ranker).side(tensors)
    for name in ("input_BI", "embedding_BD", "id_BD"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name))
    torch.testing.assert_close(found.history.keys_LA, plain.history.keys_LA)
    torch.testing.assert_close(found.history.values_LA, plain.history.values_LA)
    item = ranker.item_side(
        [torch.randn(num, 4), torch.randn(num, 2)], torch.randn(num, 2), torch.zeros(num, 0)
    )
    crosses, context = [torch.randn(3, width) for width in widths], torch.randn(1, 3)
    chosen = torch.randint(0, 3, (num, len(widths)))
    told = torch.randn(num, past)
    cross = torch.cat([told[:, :0], *(x[chosen[:, g]] for g, x in enumerate(crosses)), told], dim=1)
    wanted = ranker.logits(plain, item, context, cross)
    network = CandidateNetwork(ranker)
    logits = network(*_inputs(network, found, item, context, crosses, chosen, told))
    split = network.split(logits.numpy())
    assert list(split) == [task.name for task in ranker.specs]
    for task, values in wanted.items():
        torch.testing.assert_close(torch.from_numpy(split[task]), values, atol=close, rtol=close)
    # In another type the starts are rows of the product; this one differs by float32's own rounding alone.
    double = network.with_first_layer_in(torch.float64)
    again = double(*_inputs(double, found, item, context, crosses, chosen, told))
    torch.testing.assert_close(again, logits, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
@pytest.mark.parametrize("events", [0, 1, 6])
def test_a_history_read_as_a_sequence(tasks, encoder, events):
    torch.manual_seed(6)
    history = {"encoder": encoder, "dim": 6, "num_layers": 2}
    built = Ranker(INPUTS, tasks, ModelConfig(**SIZES, history=history))
    encoder = copy.deepcopy(built.history.encoder)
    ranker = _randomised(built)
    ranker.history.encoder = encoder.eval()  # layers of random weights give states of any length
    _compare(ranker, events=events, close=3e-4)  # keys of random weights are long, and sums of them inexact


def _inputs(network, user, item: ItemSide, context, crosses, chosen, told):
    weights = network.of_user(user)
    return (
        torch.cat([item.input_BI, item.embedding_BD], dim=1),
        chosen + 3 * torch.arange(len(crosses)),
        network.first_layer.starts(user, context, crosses),
        weights.scores_DX,
        weights.values_LA,
        weights.first_KO,
        told,
    )


def test_logits_are_those_of_the_ranker(made):
    _compare(made)


@pytest.mark.parametrize("ensemble_size", [1, 2])
def test_heads_of_one_shape_are_computed_together(tasks, ensemble_size):
    own = [task.model_copy(update={"transfer_from": None}) for task in tasks]
    torch.manual_seed(3)
    config = SMALL.model_copy(update={"ensemble_size": ensemble_size})
    ranker = _randomised(Ranker(INPUTS, own, config))
    assert all(isinstance(heads, JointHeads) for heads in CandidateNetwork(ranker).heads)
    _compare(ranker)


@pytest.mark.parametrize("hidden", [(), (3,), (4, 4)])
def test_heads_of_other_shapes_are_computed_one_by_one(tasks, hidden):
    first, *others = (task.model_copy(update={"transfer_from": None}) for task in tasks)
    torch.manual_seed(4)
    ranker = _randomised(Ranker(INPUTS, [first.model_copy(update={"hidden": hidden}), *others], SMALL))
    assert not any(isinstance(heads, JointHeads) for heads in CandidateNetwork(ranker).heads)
    _compare(ranker)


def test_terms_of_the_item_are_added_to_the_logits_of_their_heads(tasks):
    inputs = dataclasses.replace(INPUTS, item_numbers=(("price", 1), ("rate", 1)))
    torch.manual_seed(5)
    before = _randomised(Ranker(inputs, tasks, SMALL))
    ranker = before.with_item_terms(
        {"buy": {"rate": 2.0}, "click": {"rate": 0.5, "price": -1.0}, "stars": {}}
    )
    before.with_item_terms({"buy": {"rate": 9.0}})  # another one, of the same weights
    _compare(ranker)
    batch, rows, _ = _user(ranker, EVENTS)
    user, numbers = ranker.user_side(batch, rows).one(0), torch.randn(NUM, 2)
    item = ranker.item_side([torch.randn(NUM, 4), torch.randn(NUM, 2)], numbers, torch.zeros(NUM, 0))
    without, found = (
        r.logits(user, item, torch.randn(1, 3) * 0, torch.zeros(NUM, 3)) for r in (before, ranker)
    )
    torch.testing.assert_close(found["buy"] - without["buy"], 2.0 * numbers[:, 1])
    torch.testing.assert_close(found["click"] - without["click"], 0.5 * numbers[:, 1] - numbers[:, 0])
    torch.testing.assert_close(found["stars"], without["stars"])
    assert not any("item_term" in name for name in ranker.state_dict()), "weights are saved without them"


@pytest.mark.parametrize("name", ["weight", "price"])
def test_a_term_of_what_is_no_number_of_the_item_is_refused(tasks, name):
    ranker = Ranker(INPUTS, tasks, SMALL)
    with pytest.raises(ConfigError, match=f"click weighs '{name}', which is no number of an item here"):
        ranker.with_item_terms({"click": {name: 1.0}})


class _Plain(Trunk):
    """A trunk of a user's own, which gives `forward` alone."""

    def __init__(self, num_in, tasks, shape, dropout):
        super().__init__(num_in, tasks, shape, dropout)
        self.network = mlp(num_in, shape.hidden, dropout)

    def forward(self, x_BI):
        return dict.fromkeys(self.tasks, self.network(x_BI))


def test_a_trunk_that_does_not_split_off_its_first_layer_is_served(tasks, monkeypatch):
    monkeypatch.setitem(TRUNKS, "plain", _Plain)
    torch.manual_seed(0)
    config = ModelConfig.model_construct(
        **{**dict(SMALL), "trunk": SMALL.trunk.model_copy(update={"name": "plain"})}
    )
    _compare(_randomised(Ranker(INPUTS, tasks, config)))


@pytest.mark.parametrize("made", ["mmoe"], indirect=True)
@pytest.mark.parametrize("events", [0, 1])
def test_short_histories(made, events):
    _compare(made, events=events)


@pytest.mark.parametrize("made", ["mmoe"], indirect=True)
def test_no_candidates(made):
    _compare(made, num=0)


@pytest.mark.parametrize("widths", [(), (3,)])
def test_one_cross_or_none(tasks, widths):
    inputs = dataclasses.replace(INPUTS, cross_numbers=tuple((f"c{w}", w) for w in widths))
    torch.manual_seed(1)
    _compare(_randomised(Ranker(inputs, tasks, SMALL)), widths=widths)


@pytest.mark.parametrize("widths", [(), (2, 1)])
def test_what_the_past_says_of_each_candidate(tasks, widths):
    crosses = tuple((f"c{w}", w) for w in widths)
    inputs = dataclasses.replace(INPUTS, cross_numbers=crosses, past_numbers=(("score", 1), ("place", 1)))
    torch.manual_seed(8)
    _compare(_randomised(Ranker(inputs, tasks, SMALL)), widths=widths, past=2)


def test_users_without_an_id(tasks):
    inputs = dataclasses.replace(INPUTS, user_tables=INPUTS.user_tables[1:])
    torch.manual_seed(2)
    _compare(_randomised(Ranker(inputs, tasks, SMALL)))


@torch.no_grad()
@pytest.mark.parametrize("made", ["mmoe"], indirect=True)
def test_in_bfloat16_what_all_candidates_share_keeps_its_digits(made):
    """Starts are the largest summands. Here the weights take away what bfloat16 holds of them."""
    _, _, tensors = _user(made, EVENTS)
    user, network = OneUser(made).side(tensors), CandidateNetwork(made)
    rounded = network.with_first_layer_in(torch.bfloat16)
    weights = rounded.of_user(user)
    assert weights.first_KO.dtype == torch.bfloat16
    torch.testing.assert_close(weights.first_KO, network.of_user(user).first_KO.to(torch.bfloat16))
    starts_PO = 300 * torch.randn(3, weights.first_KO.shape[1])
    first_KO = torch.zeros_like(weights.first_KO)
    first_KO[:3] = -starts_PO.to(torch.bfloat16)
    rows_NW, places_NG = torch.zeros(3, 13), torch.arange(3).unsqueeze(1)
    rows_NW[:, :3] = torch.eye(3)
    inputs = (rows_NW, places_NG, starts_PO, weights.scores_DX, weights.values_LA)
    none = torch.zeros(3, 0)
    found, wanted = rounded(*inputs, first_KO, none), network(*inputs, first_KO.float(), none)
    torch.testing.assert_close(found, wanted, atol=5e-3, rtol=5e-3)


@torch.no_grad()
@pytest.mark.parametrize("made", ["mmoe"], indirect=True)
def test_many_starts_are_picked_and_not_multiplied(made):
    """A user who was shown hundreds of items has a start for each: the product would be mostly of them."""
    _, _, tensors = _user(made, EVENTS)
    network = CandidateNetwork(made)
    rounded = network.with_first_layer_in(torch.bfloat16)
    weights = rounded.of_user(OneUser(made).side(tensors))
    torch.manual_seed(5)
    places_NG, starts_PO = torch.randint(300, (NUM, 2)), torch.randn(300, weights.first_KO.shape[1])
    inputs = (torch.randn(NUM, 13), places_NG, starts_PO, weights.scores_DX, weights.values_LA)
    none = torch.zeros(NUM, 0)
    found = rounded(*inputs, torch.zeros_like(weights.first_KO), none)
    wanted = network(*inputs, torch.zeros_like(weights.first_KO.float()), none)
    torch.testing.assert_close(found, wanted, atol=0.0, rtol=0.0)
    found = rounded(*inputs, weights.first_KO, none)
    wanted = network(*inputs, weights.first_KO.float(), none)
    assert not torch.equal(found, wanted)
    torch.testing.assert_close(found, wanted, atol=5e-2, rtol=5e-2)


@torch.no_grad()
@pytest.mark.parametrize("made", ["mmoe"], indirect=True)
def test_trunks_in_bfloat16_round_their_products_alone(made):
    _, _, tensors = _user(made, EVENTS)
    user, network = OneUser(made).side(tensors), CandidateNetwork(made)
    first, rounded = network.with_first_layer_in(torch.bfloat16), network.with_trunks_in(torch.bfloat16)
    assert rounded is not None
    weights = rounded.of_user(user)
    torch.manual_seed(5)
    starts_PO = torch.randn(3, weights.first_KO.shape[1])
    inputs = (torch.randn(NUM, 13), torch.randint(3, (NUM, 2)), starts_PO, weights.scores_DX)
    given, none = (*inputs, weights.values_LA), torch.zeros(NUM, 0)
    wanted = network(*given, weights.first_KO.float(), none)
    one, all_of_them = first(*given, weights.first_KO, none), rounded(*given, weights.first_KO, none)
    assert all_of_them.dtype == torch.float32
    assert not torch.equal(one, all_of_them), "experts multiply in float32 still"
    torch.testing.assert_close(all_of_them, wanted, atol=5e-2, rtol=5e-2)
    # The network that it was made of, and the model behind, are as they were.
    torch.testing.assert_close(network(*given, weights.first_KO.float(), none), wanted, atol=0.0, rtol=0.0)


@pytest.mark.parametrize("made", ["ple", "shared_bottom"], indirect=True)
def test_a_trunk_without_such_a_form_says_so(made):
    assert CandidateNetwork(made).with_trunks_in(torch.bfloat16) is None
