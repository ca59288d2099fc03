import numpy as np
import torch

from benchmarks.quality.models.bags import bags_of
from benchmarks.quality.models.pair_ranker import _pooled
from recsys.batch import BagIndex


def lists(bags):
    ends = [*bags.starts.tolist()[1:], bags.values.numel()]
    return [bags.values[a:b].tolist() for a, b in zip(bags.starts.tolist(), ends, strict=True)]


def made():
    """User 0 has items 5 and 7, user 1 none, user 2 items 6, 5 and 8; each with a token of its stars."""
    item = np.array([6, 5, 5, 7, 8])
    tokens = np.stack([item, item + 10], axis=1)
    return bags_of(np.array([2, 0, 2, 0, 2]), tokens, 3, 20)


def test_what_is_trained_is_never_in_its_own_bag():
    bags, rng = made(), np.random.default_rng(0)
    whole = {0: {5, 7}, 1: set(), 2: {6, 5, 8}}
    item = np.array([6, 5, 5, 7, 8])
    for _ in range(20):
        users = np.array([2, 0, 1])
        rows, owner, others = bags.give_part(users, 0.5, rng)
        shown = [{t for t in bag if t < 10} for bag in lists(others)]
        for place, user in enumerate(users.tolist()):
            hidden = set(item[rows[owner == place]].tolist())
            assert not hidden & shown[place]
            assert hidden | shown[place] == whole[user]


def test_pairs_of_the_training_rows_are_known():
    bags = made()
    assert bags.have(np.array([0, 0, 1, 2]), np.array([5, 6, 5, 8])).tolist() == [True, False, False, True]


def test_a_bag_is_summed_over_the_root_of_its_size_and_an_empty_one_is_zero():
    rows_UD = torch.arange(8.0).reshape(4, 2)
    bag = BagIndex(torch.tensor([1, 3, 2, 2]), torch.tensor([0, 2, 2]))
    expected = torch.stack([(rows_UD[1] + rows_UD[3]) / 2**0.5, torch.zeros(2), 2 * rows_UD[2] / 2**0.5])
    assert torch.allclose(_pooled(rows_UD, bag), expected)
