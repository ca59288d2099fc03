"""Every encoder of sequences: an event's state is of its own past alone, and all parameters are trained."""

import pytest
import torch
from torch.nn import functional

from recsys.errors import ConfigError
from recsys.model.sequence import ENCODERS, build_encoder
from recsys.model.sequence.encoder import MOST_STEPS, EncoderShape, gap_buckets
from recsys.model.sequence.event_lists import EventLists
from recsys.model.sequence.hstu import pointwise_weights
from recsys.model.sequence.sasrec import softmax_weights

SHAPE = EncoderShape(dim=8, num_layers=2, num_heads=2, dropout=0.0, timed=True)
COUNTS = torch.tensor([3, 0, 9, 1, 70])


@pytest.fixture(params=sorted(ENCODERS))
def encoder(request):
    torch.manual_seed(0)
    built = build_encoder(request.param, SHAPE).double()
    for name, parameter in built.named_parameters():
        if "bias." in name:  # of pairs
            torch.nn.init.normal_(parameter)
    return built


@pytest.fixture
def events():
    """Give events of five lists and when they were, in minutes, rising in each list."""
    generator = torch.Generator().manual_seed(1)
    num = int(COUNTS.sum())
    minutes = torch.randint(0, 400, (num,), generator=generator).cumsum(0)
    return torch.randn(num, 8, generator=generator, dtype=torch.float64), minutes


def test_a_state_is_that_of_a_list_that_ends_there(encoder, events):
    x_ED, minutes_E = events
    states_ED = encoder(x_ED, minutes_E, EventLists.of(COUNTS))
    for start, count in zip(COUNTS.cumsum(0) - COUNTS, COUNTS, strict=True):
        for stop in {1, int(count) // 2, int(count)} - {0}:
            if count:
                part = slice(start, start + stop)
                alone = encoder(x_ED[part], minutes_E[part] + 77, EventLists.of(torch.tensor([stop])))
                torch.testing.assert_close(alone[-1], states_ED[start + stop - 1])


def test_order_and_time_are_read(encoder, events):
    x_ED, minutes_E = events[0][:9], events[1][:9]
    lists = EventLists.of(torch.tensor([9]))
    state_D = encoder(x_ED, minutes_E, lists)[-1]
    turned = torch.cat([x_ED[:8].flip(0), x_ED[8:]])
    assert not torch.allclose(encoder(turned, minutes_E, lists)[-1], state_D)
    assert not torch.allclose(encoder(x_ED, minutes_E * 60, lists)[-1], state_D)


def test_every_parameter_is_trained(encoder, events):
    encoder(*events, EventLists.of(COUNTS)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_no_events_give_no_states(encoder):
    lists = EventLists.of(torch.tensor([0, 0]))
    none = torch.zeros(0, 8, dtype=torch.float64)
    assert encoder(none, torch.zeros(0, dtype=torch.int64), lists).shape == (0, 8)
    assert EventLists.of(torch.zeros(0, dtype=torch.int64)).grids == ()


@pytest.mark.parametrize("name", ["sasrec", "hstu"])
def test_a_layer_mixes_as_its_paper_says(name, events):
    """The plain form, event by event and head by head."""
    torch.manual_seed(0)
    (layer,) = build_encoder(name, EncoderShape(dim=8, num_layers=1, dropout=0.0)).double().layers
    x_LD = events[0][:6]
    parts = [torch.randn(6, 8, dtype=torch.float64) for _ in range(3)]
    mix = {"sasrec": softmax_weights, "hstu": pointwise_weights}[name]
    lists = EventLists.of(torch.tensor([6]))
    found = layer.look_back((parts[0], parts[1], parts[2]), lists, torch.zeros(6), mix)
    for event in range(6):
        for head in range(2):
            columns = slice(4 * head, 4 * head + 4)
            query, keys, values = (part[:, columns] for part in parts)
            score = keys[: event + 1] @ query[event] / 2
            score = score + layer.bias.step_SH[: event + 1, head].flip(0)
            weight = score.softmax(0) if name == "sasrec" else functional.silu(score) / 50
            torch.testing.assert_close(found[event, columns], weight @ values[: event + 1])
    assert layer(x_LD, torch.zeros(6), lists).shape == (6, 8)


def test_steps_further_back_than_the_table_have_the_last_bias(events):
    encoder = build_encoder("sasrec", SHAPE)
    torch.nn.init.normal_(encoder.layers[0].bias.step_SH)
    (grid,) = EventLists.of(torch.tensor([MOST_STEPS + 5])).grids
    bias = encoder.layers[0].bias(torch.zeros(MOST_STEPS + 5, dtype=torch.int64), grid)[0, 0, -1]
    assert torch.equal(bias[:6], bias[5].expand(6))
    assert bias[6] != bias[5]


def test_gaps_are_in_powers_of_two_of_a_minute():
    gaps = gap_buckets(torch.tensor([[0, 1, 3, 3 + 1023]]))[0]
    assert gaps[:, 0].tolist() == [0, 1, 2, 10]
    assert gaps[0].tolist() == [0, 0, 0, 0], "later events"


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match=r"'gru4rec' is unknown; known: hstu, sasrec"):
        build_encoder("gru4rec", SHAPE)
