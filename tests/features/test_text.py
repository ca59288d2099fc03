"""Item text: unit vectors that bring like words together, equal for one text and many."""

import numpy as np
import polars as pl

from features.text import embed_text, fit_text, join_text

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
