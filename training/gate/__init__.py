"""The gate: challenger against champion on the same rows -> PROMOTE, HOLD or HOLD_UNDERPOWERED, with reasons.

A rule is a function from measured facts to checks, in a file of its own:

    compare           all comparisons of a night
    heads             each head's primary metric, by `non_inferiority`; floors where there is no champion
    list_value        the value of the fused order, by the same rule
    served_order      the fused order on each head's own labels: weights of the wrong sign
    calibration       what the predictions say against what happened
    ranked_lists      lists over the whole catalogue
    power             what the night could tell at all
"""

from training.gate.calibration import check_calibration
from training.gate.compare import Compared, GateRows, compare_bundles, of_evaluated_day
from training.gate.decision import Decision, decide, finding
from training.gate.ranked_lists import check_lists

__all__ = [
    "Compared",
    "Decision",
    "GateRows",
    "check_calibration",
    "check_lists",
    "compare_bundles",
    "decide",
    "finding",
    "of_evaluated_day",
]
