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
def test_a_kind_reads_like_a_verb(kind, did) -> None:
    assert past_tense(kind) == did
