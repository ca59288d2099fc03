"""How a check of volume and of hours writes its numbers."""

import pytest

from features.validation.checks_volume import _range, _spans


@pytest.mark.parametrize(
    ("hours", "said"),
    [(range(18), "00 to 17"), ([3], "03"), ([0, 1, 5, 22, 23], "00 to 01, 05, 22 to 23")],
)
def test_hours_in_a_row_are_one_span(hours, said):
    assert _spans(list(hours)) == said


def test_large_numbers_have_all_digits():
    assert _range(5056.4, (0.5, 0.4), (1.0, 2.0)) == "2,528 to 5,056"
    assert _range(8.0, (0.5, 0.4), (1.125, 2.0)) == "4 to 9"
