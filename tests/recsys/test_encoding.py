"""The encoder's fitted state on disk."""

import numpy as np
import pytest

from recsys.encoding import EncoderState, NumberStatistics, TextModel
from recsys.errors import BundleError
from recsys.vocabulary import Vocabulary


@pytest.fixture
def state():
    return EncoderState(
        vocabularies={"b": Vocabulary(ids=("x",), hash_buckets=2), "a": Vocabulary(ids=(), hash_buckets=0)},
        numbers={"n": NumberStatistics(prior=1 / 3, mean=-2.5e-7, std=1e9)},
        history={"rating": (1 / 3, 2.5), "watch": ()},
        text=TextModel(
            terms=("é", "b"), idf=np.array([1, 2], np.float32), components=np.ones((2, 3), np.float32)
        ),
    )


def test_a_round_trip_keeps_every_bit(state, tmp_path):
    state.save(tmp_path)
    loaded = EncoderState.load(tmp_path)
    assert loaded.vocabularies == state.vocabularies
    assert loaded.numbers == state.numbers
    assert loaded.history == state.history
    assert loaded.text.terms == state.text.terms
    np.testing.assert_array_equal(loaded.text.components, state.text.components)
    assert loaded.digest() == state.digest()


def test_a_state_without_text(state, tmp_path):
    EncoderState(vocabularies=state.vocabularies, numbers=state.numbers).save(tmp_path)
    assert EncoderState.load(tmp_path).text is None


@pytest.mark.parametrize(
    "name", ["encoder.json", "vocabularies/b.parquet", "text_terms.parquet", "text.safetensors"]
)
def test_a_broken_file_is_a_bundle_error(state, tmp_path, name):
    state.save(tmp_path)
    (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(BundleError):
        EncoderState.load(tmp_path)


@pytest.mark.parametrize("name", ["encoder.json", "vocabularies/b.parquet", "text_terms.parquet"])
def test_a_missing_file_is_a_bundle_error(state, tmp_path, name):
    state.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError):
        EncoderState.load(tmp_path)
