"""Parts of their own: how memory grows, which acknowledged rows a journal lacks, where time goes."""

import cProfile
import time

import numpy as np
import pytest

from benchmarks.speed.serve.generator import poisson_times
from benchmarks.speed.serve.kill_part import Acknowledged
from benchmarks.speed.serve.profile_part import by_module
from benchmarks.speed.serve.soak_part import slope_per_hour
from recsys.journal import MAGIC, SEALED_SUFFIX, Rows, encode, stem


def test_the_slope_is_that_of_the_line_after_the_warm_up():
    at_s = np.arange(0.0, 1_000.0, 10.0)
    memory = 500 + 12 * at_s / 3600
    memory[:20] -= 300  # caches fill
    assert slope_per_hour(at_s, memory) == pytest.approx(12)
    assert np.isnan(slope_per_hour(at_s[:1], memory[:1]))


def test_acknowledged_rows_that_the_journal_lacks_are_counted(tmp_path):
    written = [
        Rows(table="requests", same={"request_id": "a"}),
        Rows(table="feedback", same={"user_id": "u"}, each={"feedback_id": ["f1", "f2"]}),
    ]
    path = tmp_path / (stem(1, "s", 1) + SEALED_SUFFIX)
    path.write_bytes(MAGIC + encode(1, written))
    acknowledged = Acknowledged()
    acknowledged.ids["requests"] |= {"a", "b"}
    acknowledged.ids["feedback"] |= {"f1", "f2"}
    acknowledged.ids["item_patches"] |= {"i"}
    assert acknowledged.lost(tmp_path) == {"requests": 1, "feedback": 0, "item_patches": 1}


def test_a_librarys_time_counts_for_the_module_that_called_it():
    profile = cProfile.Profile(time.process_time)  # what another process takes from this one counts nowhere
    profile.runcall(poisson_times, 100_000.0, 1.0, 0)
    shares = by_module(profile)
    assert next(iter(shares)) == "benchmarks/speed/serve/generator.py"  # its products are NumPy's
    assert sum(shares.values()) == pytest.approx(1, abs=0.05)
