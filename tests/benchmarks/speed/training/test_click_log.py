import numpy as np
import pytest

from benchmarks.speed.training.click_log import (
    COLUMN_SIZES,
    RATES,
    read_array,
    read_chunk,
    write_click_log,
)
from benchmarks.speed.training.click_log_model import COLUMNS, FIRST_ROW, TABLE, ClickLogBatches
from recsys.metrics.pointwise import auc

ROWS = 6_000
ITEM, SELLER = 1, 3


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("click-log")
    write_click_log(folder, ROWS, ROWS, seed=1)
    return folder


def test_equal_seeds_write_equal_bytes_and_other_seeds_others(arrays, tmp_path):
    write_click_log(tmp_path / "same", ROWS, ROWS, seed=1)
    write_click_log(tmp_path / "other", ROWS, ROWS, seed=2)
    names = sorted(p.name for p in arrays.glob("*.npy") if "scores" not in p.name)
    assert len(names) == 8
    for name in names:
        assert (arrays / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
        assert (arrays / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_the_log_is_as_it_says(arrays):
    rows = read_chunk(arrays, "train", 0, ROWS)
    assert (rows.ids_NC.min(axis=0) >= 0).all()
    assert (rows.ids_NC.max(axis=0) < COLUMN_SIZES).all()
    click_N, bought_N = rows.labels_NK.T
    assert (click_N >= bought_N).all()  # a purchase needs a click
    assert rows.labels_NK.mean(axis=0) == pytest.approx(RATES, rel=0.2)
    pairs = set(zip(rows.ids_NC[:, ITEM].tolist(), rows.ids_NC[:, SELLER].tolist(), strict=True))
    assert len(pairs) == len({item for item, _ in pairs})  # a seller is a property of the item


def test_labels_are_drawn_from_the_truth_of_their_own_row(arrays):
    labels_NK, truth_NK = (read_array(arrays, "test", name) for name in ("labels", "truth"))
    for k in range(2):
        assert auc(labels_NK[:, k], truth_NK[:, k]) > 0.75
        assert auc(labels_NK[:, k], np.roll(truth_NK[:, k], 1)) == pytest.approx(0.5, abs=0.08)


def rows_of(batch):
    ids_BC = batch.rows[COLUMNS][batch.index[COLUMNS]].numpy() - FIRST_ROW
    return np.column_stack([ids_BC, batch.context_numbers_BF, *batch.labels.values()])


def test_batches_hold_every_row_once_with_its_own_ids_and_labels(arrays):
    batches = ClickLogBatches(folder=arrays, part="train", rows=ROWS - 1, batch_size=512, seed=0)
    made = list(batches)
    assert len(made) == batches.steps
    assert max(b.size for b in made) <= 512
    got = np.concatenate(
        [
            np.column_stack(
                [
                    b.rows[COLUMNS][b.index[COLUMNS]].numpy() - FIRST_ROW,
                    b.context_numbers_BF,
                    *b.labels.values(),
                ]
            )
            for b in made
        ]
    )
    rows = read_chunk(arrays, "train", 0, ROWS - 1)
    asked = np.column_stack([rows.ids_NC, rows.numbers_NF, rows.labels_NK])
    assert not (got == asked).all()  # shuffled
    assert (np.sort(got, axis=0) == np.sort(asked, axis=0)).all()
    assert (got[np.lexsort(got.T)] == asked[np.lexsort(asked.T)]).all()
    assert max(int(b.rows[COLUMNS].max()) for b in made) < TABLE.size


def test_shuffled_labels_belong_to_other_rows(arrays):
    plain = ClickLogBatches(folder=arrays, part="train", rows=ROWS, batch_size=512, seed=0)
    mixed = ClickLogBatches(
        folder=arrays, part="train", rows=ROWS, batch_size=512, seed=0, shuffle_labels=True
    )

    def by_number(batches):
        return {
            float(number): float(label)
            for b in batches
            for number, label in zip(b.context_numbers_BF[:, 0], b.labels["click"], strict=True)
        }

    own, other = by_number(plain), by_number(mixed)
    assert own.keys() == other.keys()
    assert sum(own.values()) == sum(other.values())
    assert sum(own[n] * other[n] for n in own) < 0.3 * sum(own.values())
