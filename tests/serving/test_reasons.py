import pytest

from serving.reasons import past_tense


@pytest.mark.parametrize(
    ("kind", "did"),
    [
        ("click", "clicked"),
        ("purchase", "purchased"),
        ("rating", "rated"),
        ("like", "liked"),
        ("long_view", "long viewed"),
    ],
)
def test_the_past_tense_of_a_kind(kind, did) -> None:
    assert past_tense(kind) == did
