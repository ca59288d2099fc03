"""Item text: unit vectors that bring like words together, equal for one text and many."""

import sys
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from features.text import _sentence_model, embed_text, fit_text, join_text
from recsys.encoding import EncoderState
from recsys.errors import ConfigError

TEXTS = [
    "red running shoe",
    "blue running shoe",
    "red wine glass",
    "white wine glass",
    "running socks",
    "wine opener",
]


def test_like_texts_are_near():
    vectors = embed_text(fit_text(TEXTS, 3, 0), TEXTS)
    assert vectors.dtype == np.float32
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[3] + 0.3


def test_vectors_have_length_one_or_nothing():
    vectors = embed_text(fit_text(TEXTS, 4, 0), [*TEXTS, "", "unknown words only"])
    np.testing.assert_allclose(np.linalg.norm(vectors[:6], axis=1), 1, atol=1e-6)
    assert not vectors[6:].any()


@pytest.mark.filterwarnings("error")
def test_texts_that_are_all_alike_give_no_warning():
    vectors = embed_text(fit_text(["red shoe"] * 6, 2, 0), ["red shoe"])
    np.testing.assert_allclose(np.linalg.norm(vectors), 1, atol=1e-6)


def test_one_text_and_many_give_the_same_bits():
    model = fit_text(TEXTS, 4, 0)
    many = embed_text(model, TEXTS)
    for n, text in enumerate(TEXTS):
        np.testing.assert_array_equal(embed_text(model, [text])[0], many[n])


def test_fitting_is_deterministic_and_the_width_is_what_was_asked():
    one, other = fit_text(TEXTS, 50, 3), fit_text(TEXTS, 50, 3)
    np.testing.assert_array_equal(one.components, other.components)
    assert one.components.shape == (len(one.terms), 50)


def test_nothing_to_learn_from():
    assert fit_text([], 4, 0) is None
    assert fit_text(["", ""], 4, 0) is None
    assert fit_text(["every", "word", "once"], 4, 0) is None


def test_columns_are_joined_in_order_without_nulls():
    items = pl.DataFrame({"title": ["a", None], "tags": [["x", "y"], None], "year": [1999, None]})
    assert join_text(items, ("title", "absent", "tags", "year")) == ["a x y 1999", "  "]
    assert join_text(items, ("absent",)) == ["", ""]


class Sentences:
    """Stands for the third party's model: a text's vector is its letters' counts, of unit length."""

    def __init__(self, folder, device, local_files_only):
        assert local_files_only, "nothing is downloaded"
        if not folder.endswith("model"):
            raise OSError("no such folder")

    def encode(self, texts, batch_size, normalize_embeddings):
        assert (batch_size, normalize_embeddings) == (1, True)
        counts = np.array([[text.count(c) for c in "abcdefghij"] for text in texts], np.float64)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)


@pytest.fixture
def sentence_transformers(monkeypatch):
    _sentence_model.cache_clear()
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = Sentences
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    yield
    _sentence_model.cache_clear()


def test_a_sentence_model_is_projected_and_travels_in_a_bundle(sentence_transformers, tmp_path):
    texts = ["abc", "abd", "hij", "hgj", "abcd", "ghij"]
    model = fit_text(texts, 3, 0, "some/model")
    vectors = embed_text(model, texts)
    assert vectors.shape == (6, 3)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    np.testing.assert_array_equal(embed_text(model, texts[3:4])[0], vectors[3])
    EncoderState(vocabularies={}, numbers={}, text=model).save(tmp_path)
    again = EncoderState.load(tmp_path).text
    assert again.sentence_model == "some/model"
    np.testing.assert_array_equal(embed_text(again, texts), vectors)


def test_a_sentence_model_that_is_not_there(sentence_transformers):
    with pytest.raises(ConfigError, match=r"text_model = 'nowhere' cannot be loaded \(no such folder\)"):
        fit_text(["a", "b"], 2, 0, "nowhere")


def test_without_the_extra_the_error_names_it(monkeypatch):
    _sentence_model.cache_clear()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"needs sentence-transformers.*recsys-mtl\[text\]"):
        fit_text(["a", "b"], 2, 0, "some/model")
