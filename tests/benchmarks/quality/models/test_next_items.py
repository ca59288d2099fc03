"""The split, ranks and metrics of the next item, by hand."""

import numpy as np
import pytest
from scipy import sparse

from benchmarks.quality.models import next_items
from benchmarks.quality.models.next_items import Ranked, leave_last_out, rank
from benchmarks.quality.readers.sequence_reader import Sequences


def sequences(*lines, num_items=6, attributes=None):
    return Sequences(
        name="s",
        users=np.repeat(np.arange(len(lines)), [len(line) for line in lines]),
        items=np.concatenate([np.array(line) for line in lines]),
        num_users=len(lines),
        num_items=num_items,
        attributes=attributes,
    )


def test_the_last_item_is_the_test_and_the_one_before_validates():
    validation, test = leave_last_out(sequences([0, 1, 2, 3], [4, 5], [1, 2, 4]))
    assert validation.users.tolist() == test.users.tolist() == [0, 2]
    assert validation.wanted.tolist() == [2, 2]
    assert test.wanted.tolist() == [3, 4]
    # A user with two items is trained on whole.
    assert validation.known.items.tolist() == [0, 1, 4, 5, 1]
    assert test.known.items.tolist() == [0, 1, 2, 4, 5, 1, 2]


def score_by(*rows):
    table = np.array(rows, np.float64)
    return lambda users: table[users]


@pytest.mark.parametrize("cells", [1, 10**9])
def test_ranks_leave_out_what_a_user_had(cells, monkeypatch):
    monkeypatch.setattr(next_items, "_CELLS_AT_ONCE", cells)
    _, test = leave_last_out(sequences([0, 1, 2], [5, 4, 3], [0, 1, 0]))
    found = rank(score_by([9, 8, 5, 7, 1, 1], [3, 3, 2, 3, 9, 9], [1, 2, 3, 3, 3, 0]), test)
    # Of equal scores the first row stands first; an item that was had before is never listed.
    assert found.ranks.tolist() == [1, 2, -1]
    assert found.first[:, :5].tolist() == [[3, 2, 4, 5, -1], [0, 1, 3, 2, -1], [2, 3, 4, 5, -1]]
    values = found.values()
    np.testing.assert_allclose(values["mrr"], [1 / 2, 1 / 3, 0])
    np.testing.assert_allclose(values["ndcg_at_10"], [1 / np.log2(3), 1 / 2, 0])
    assert values["recall_at_10"].tolist() == [1, 1, 0]
    outputs = found.outputs(test)
    assert outputs["coverage_at_10"].tolist() == [1.0]
    assert outputs["novelty_at_10"].shape == (3,)


def test_metrics_end_at_the_tenth_place():
    found = Ranked(ranks=np.array([9, 10]), first=np.zeros((2, 10), np.int64)).values()
    assert found["recall_at_10"].tolist() == [1, 0]
    np.testing.assert_allclose(found["ndcg_at_10"], [1 / np.log2(11), 0])
    np.testing.assert_allclose(found["mrr"], [1 / 10, 1 / 11])


def test_few_items_are_the_most_frequent_ones():
    brand = sparse.csr_matrix(np.eye(6, dtype=np.float32))
    lines = [5, 0, 3, 5], [5, 3, 1, 3], [5, 2, 3, 4], [0, 5, 3, 3]
    _, test = leave_last_out(sequences(*lines, attributes=brand))
    few = test.of_items(2)
    # Items 3 and 5 become 0 and 1; user 2's wanted item is gone.
    assert few.users.tolist() == [0, 1, 3]
    assert few.wanted.tolist() == [1, 0, 0]
    assert few.known.items.tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    assert few.attributes.toarray().argmax(axis=1).tolist() == [3, 5]
    assert test.of_items(6) is test
    drawn = test.of_users(2)
    assert drawn.users.size == drawn.wanted.size == 2
    assert set(zip(drawn.users, drawn.wanted, strict=True)) <= set(zip(test.users, test.wanted, strict=True))
