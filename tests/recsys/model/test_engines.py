"""An engine answers only if it is right; of those that are, the fastest."""

import numpy as np
import pytest
import torch

from recsys.model import engines
from recsys.model.candidate_network import CandidateInputs
from recsys.model.engines import BFLOAT16_TOLERANCE, FLOAT32_TOLERANCE, Engine, Sample, choose, difference

NUM = 100


def _run(*tensors):
    return torch.stack([tensors[0].sum(dim=1), tensors[0].prod(dim=1)])


REFERENCE = Engine("eager", _run)


@pytest.fixture
def sample():
    rows = torch.rand(NUM, 3, generator=torch.Generator().manual_seed(0))
    return Sample(CandidateInputs(rows, *[torch.zeros(1)] * 6), lambda logits: {"click": logits[0] / 3})


def _moved(by, *, exact):
    return Engine("other", lambda *tensors: _run(*tensors) + by, exact)


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (_moved(3 * FLOAT32_TOLERANCE, exact=True), r"logits differ by 3\.0e-05"),
        (_moved(6 * BFLOAT16_TOLERANCE, exact=False), "predictions of click differ by 1.0e-02"),
        (Engine("other", lambda *_: torch.full((2, NUM), torch.nan)), "not finite"),
        (Engine("other", lambda *_: torch.zeros(2, NUM - 1)), r"shape \(2, 99\), not \(2, 100\)"),
        (Engine("other", lambda *_: torch.zeros(2, 3) @ torch.zeros(2, 3)), "it fails: "),
    ],
)
def test_a_wrong_engine_is_refused_however_fast(engine, why, sample, monkeypatch):
    monkeypatch.setattr(engines, "_measured", lambda right, _: {e.name: 1.0 for e in right})
    choice = choose(REFERENCE, [engine], [sample])
    assert choice.engine is REFERENCE
    assert list(choice.milliseconds) == ["eager"]
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(choice.refused["other"])


def test_one_in_bfloat16_must_find_the_same_items(sample):
    """Predictions that lie near each other may change places without being far off."""
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(1))
    near = Sample(sample.inputs, lambda logits: {"click": logits[0] * 1e-4})
    shuffled = Engine("other", lambda *tensors: _run(*tensors)[:, order], exact=False)
    why = difference(shuffled, REFERENCE, near)
    assert why is not None
    assert why.endswith("of the best 50 by click are the same")


@pytest.mark.parametrize(("apart", "refused"), [(1.9e-3, False), (2.1e-3, True)])
def test_which_of_two_equally_good_items_is_the_last_of_the_best_does_not_matter(apart, refused):
    """Bfloat16 tells no near ties apart; what counts is how much worse the items that it finds are."""
    values = torch.linspace(1.0, 0.0, NUM)
    values[50:52] = values[49] - apart * values.std(correction=0)
    swapped = values.clone()
    swapped[48:50], swapped[50:52] = values[50:52], values[48:50]
    lists = Sample(CandidateInputs(*[torch.zeros(1)] * 7), lambda logits: {"click": logits[0] * 1e-2})
    reference, other = (
        Engine(n, lambda *_, v=v: v[None], exact=False) for n, v in (("r", values), ("o", swapped))
    )
    assert (difference(other, reference, lists) is not None) == refused


@pytest.mark.parametrize("exact", [True, False])
def test_the_faster_of_two_that_are_right(sample, monkeypatch, exact):
    other = _moved(FLOAT32_TOLERANCE / 2, exact=exact)
    for times, best in (((2.0, 1.0), other), ((1.0, 2.0), REFERENCE)):
        monkeypatch.setattr(
            engines, "_measured", lambda right, _, t=times: dict(zip([e.name for e in right], t, strict=True))
        )
        choice = choose(REFERENCE, [other], [sample])
        assert choice.engine is best
        assert choice.milliseconds == {"eager": times[0], "other": times[1]}
        assert choice.refused == {}


def test_times_are_of_the_processor(sample):
    slow = Engine("other", lambda *tensors: torch.stack([_run(*tensors) for _ in range(100)])[0])
    times = choose(REFERENCE, [slow], [sample]).milliseconds
    assert 10 * times["eager"] < times["other"]
    assert np.isfinite(list(times.values())).all()
