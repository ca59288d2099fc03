"""History attention without a tensor of all events equals the plain form with one, gradients too."""

import pytest
import torch
from torch.autograd import gradcheck

from recsys.batch import HistoryIndex
from recsys.model.history import NUM_AGES, HistoryAttention
from recsys.model.row_lists import RowLists, list_products, list_softmax, list_sums

LENGTHS = (3, 0, 5, 1, 0)
NUM_ITEMS, ITEM_DIM, DIM, NUM_KINDS = 4, 6, 3, 2


@pytest.fixture(scope="module", autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def index():
    num = sum(LENGTHS)
    item_E = torch.randint(0, NUM_ITEMS, (num,))
    return HistoryIndex(
        item_E=item_E,
        kind_E=torch.randint(1, NUM_KINDS + 1, (num,)),
        age_E=torch.randint(0, NUM_AGES, (num,)),
        owner_E=torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS)),
        start_B=torch.tensor([sum(LENGTHS[:n]) for n in range(len(LENGTHS))]),
        by_item_E=item_E.argsort(),
    )


@pytest.fixture
def lists(index):
    return RowLists(index.item_E, index.owner_E, index.start_B, index.by_item_E, NUM_ITEMS)


@pytest.fixture
def attention():
    made = HistoryAttention(ITEM_DIM, DIM, NUM_KINDS).double()
    torch.nn.init.normal_(made.age.steps_ND)
    return made


def _plain(attention, items_UD, index, query_BA):
    """Form every event's key and value and average them history by history."""
    age_ND = attention.age.steps_ND.cumsum(dim=0)
    event_EA = attention.kind.weight[index.kind_E] + age_ND[index.age_E]
    keys_EA = attention.key(items_UD)[index.item_E] + event_EA
    values_EA = attention.value(items_UD)[index.item_E] + event_EA
    summaries, attended = [], []
    for keys, values, query in zip(keys_EA.split(LENGTHS), values_EA.split(LENGTHS), query_BA, strict=True):
        for scores, found in (
            (attention.event_score(keys).squeeze(1), summaries),
            (keys @ query / DIM**0.5, attended),
        ):
            weights = torch.cat([scores.new_zeros(1), scores]).softmax(dim=0)[1:]
            found.append(weights @ values)
    return torch.stack(summaries), torch.stack(attended)


def test_summary_and_attention_are_those_of_the_plain_form_with_their_gradients(attention, index):
    inputs = [torch.randn(NUM_ITEMS, ITEM_DIM).double(), torch.randn(len(LENGTHS), DIM).double()]
    weights = torch.randn(2, len(LENGTHS), DIM).double()
    results = []
    for form in ("parts", "plain"):
        items_UD, query_BA = (x.clone().requires_grad_() for x in inputs)
        if form == "parts":
            histories, summary_BA = attention(items_UD, index)
            found = summary_BA, histories.attend(query_BA)
        else:
            found = _plain(attention, items_UD, index, query_BA)
        used = {n: p for n, p in attention.named_parameters() if not n.startswith("query")}
        loss = sum((w * x).sum() for w, x in zip(weights, found, strict=True))
        gradients = torch.autograd.grad(loss, [items_UD, query_BA, *used.values()])
        results.append([*found, *gradients])
    for own, expected in zip(*results, strict=True):
        torch.testing.assert_close(own, expected)
    assert not results[0][0][[1, 4]].any(), "no event at all gives zero"


def test_one_history_attends_as_it_does_among_others(attention, index):
    histories, _ = attention(torch.randn(NUM_ITEMS, ITEM_DIM).double(), index)
    query_BA = torch.randn(len(LENGTHS), DIM).double()
    expected = histories.attend(query_BA)
    for row in range(len(LENGTHS)):
        many = histories.one(row).attend(query_BA)
        torch.testing.assert_close(many[row], expected[row])


def test_scores_of_any_size_give_weights(lists):
    weight_E = list_softmax(torch.tensor([-800.0, 3.0, 800.0, *[-800.0] * 6]), lists)
    torch.testing.assert_close(weight_E, torch.tensor([0.0, 0.0, 1.0, *[0.0] * 6]))


def test_bfloat16_products_change_little(attention, index):
    single = attention.float()
    items_UD, query_BA = torch.randn(NUM_ITEMS, ITEM_DIM), torch.randn(len(LENGTHS), DIM)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            histories, summary_BA = single(items_UD, index)
            found.append([summary_BA, histories.attend(query_BA)])
    for exact, rounded in zip(*found, strict=True):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)


def test_no_events_at_all(attention):
    histories, summary_BA = attention(torch.zeros(0, ITEM_DIM).double(), HistoryIndex.empty(2))
    for found in (
        summary_BA,
        histories.attend(torch.ones(2, DIM).double()),
        histories.one(1).attend(torch.ones(2, DIM).double()),
    ):
        assert torch.equal(found, torch.zeros(2, DIM).double())


def test_gradients_of_lists(lists):
    x_BA, rows_UA = torch.randn(len(LENGTHS), DIM).double(), torch.randn(NUM_ITEMS, DIM).double()
    weight_E = torch.randn(sum(LENGTHS)).double()
    for x in (x_BA, rows_UA, weight_E):
        x.requires_grad_()
    assert gradcheck(lambda w, r: list_sums(w, r, lists), (weight_E, rows_UA))
    assert gradcheck(lambda x, r: list_products(x, r, lists), (x_BA, rows_UA))
    assert gradcheck(lambda w: list_softmax(w, lists), (weight_E,))
