"""The gate: challenger against champion on the same rows -> PROMOTE, HOLD or HOLD_UNDERPOWERED, with reasons.

A rule is a function from measured facts to checks, in a file of its own:

    compare           all comparisons of a night
    heads             each head's primary metric, by `non_inferiority`; floors where there is no champion
    list_value        the value of the fused order, by the same rule
    served_order      the fused order on each head's own labels: weights of the wrong sign
    segments          the order of users and contexts of one kind
    calibration       what the predictions say against what happened
    shift             how the predictions lie against the live bundle's
    refit             the bundle that goes live, on days it has learned
    ranked_lists      lists over the whole catalogue
    as_served         golden requests, index, pages, size, time of a request
    power             what the night could tell at all
"""

from training.gate.as_served import ServedFacts, check_lists_alike, check_served
from training.gate.calibration import check_calibration, check_ratios
from training.gate.compare import Compared, GateRows, compare_bundles, of_evaluated_day
from training.gate.decision import Decision, decide, finding
from training.gate.ranked_lists import check_lists
from training.gate.refit import check_refit
from training.gate.shift import check_shift

__all__ = [
    "Compared",
    "Decision",
    "GateRows",
    "ServedFacts",
    "check_calibration",
    "check_lists",
    "check_lists_alike",
    "check_ratios",
    "check_refit",
    "check_served",
    "check_shift",
    "compare_bundles",
    "decide",
    "finding",
    "of_evaluated_day",
]
