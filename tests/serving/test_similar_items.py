import numpy as np
import pytest

from serving.similar_items import similarity_scores

COSINES = np.array([0.99, 0.97, 0.93, 0.2, -0.42], dtype=np.float32)


def order(scores: np.ndarray) -> list[int]:
    return np.argsort(-scores, kind="stable").tolist()


def test_within_a_step_taste_decides() -> None:
    taste = np.array([1.0, 5.0, 9.0, 99.0, 999.0])
    assert order(similarity_scores(COSINES, taste, 0.05)) == [1, 0, 2, 3, 4]


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_scale_of_taste_does_not_matter(scale) -> None:
    taste = scale * np.array([1.0, 5.0, 9.0, 99.0, 999.0])
    scores = similarity_scores(COSINES, taste, 0.05)
    assert scores == pytest.approx([0.95, 0.96, 0.92, 0.23, -0.41])


@pytest.mark.parametrize(("taste", "step"), [(None, 0.05), (np.arange(5.0), 0.0)])
def test_without_taste_or_step_the_cosine_is_the_score(taste, step) -> None:
    assert similarity_scores(COSINES, taste, step) == pytest.approx(COSINES)
