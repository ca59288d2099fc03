"""The line of a fit: what it says on the way, at the end, and after a fit went on."""

import os
import re
import subprocess
import sys

import pytest

from training.fit_progress import WINDOW_S, FitProgress, fit_progress


@pytest.fixture
def seen():
    """Give one that is shown at every step of 100 of 1,000 rows, two seconds each."""
    lines = []
    made = FitProgress(1000, 0.0, lambda shown: lines.append(f"{shown.pace}; {shown.loss}"))
    began = made.began

    def step(number, seconds=2.0, loss=0.5):
        made.on_losses(number, {"click": loss, "purchase": 0.01})
        made.see(100 * (number + 1), 100, began + seconds * (number + 1))
        return lines[-1]

    return step, made


def test_the_line_has_rows_rate_time_left_and_losses(seen):
    step, _ = seen
    for number in range(4):
        line = step(number)
    assert line == "400 of 1,000 rows, 50 rows/s, 0:00:12 left; click 0.5 purchase 0.01"


def test_a_fit_that_went_on_is_as_fast_as_what_it_learned_itself(seen):
    step, _ = seen
    assert step(6, seconds=2 / 7).startswith("700 of 1,000 rows, 50 rows/s")


def test_what_came_before_the_first_step_is_no_pace_to_go_on_with(seen):
    """Days are encoded, ranks start, a checkpoint is read: the time left is of steps alone."""
    _, made = seen
    started = made.began + 100
    made.see(600, 100, started)
    made.see(700, 100, started + 2)
    made.see(800, 100, started + 4)
    assert made.pace == "800 of 1,000 rows, 50 rows/s, 0:00:04 left"


def test_the_rate_is_that_of_the_last_half_minute(seen):
    _, made = seen
    for second in range(1, 100):
        made.see(100 * second, 100, made.began + second)
    for second in range(100, 100 + int(WINDOW_S) + 1):
        made.see(9900 + 10 * (second - 99), 10, made.began + second)
    assert made.rate == pytest.approx(10)


def test_losses_are_averaged_and_the_first_ones_count_in_full(seen):
    step, made = seen
    step(0, loss=3.0)
    assert made.losses["click"] == pytest.approx(3.0)
    for number in range(1, 400):
        step(number, loss=1.0 if number % 2 else 2.0)
    assert made.losses["click"] == pytest.approx(1.5, abs=0.02)


def test_steps_that_know_nothing_of_a_task_do_not_lower_its_loss(seen):
    step, made = seen
    for number in range(50):
        step(number, loss=0.5 if number < 25 else 0.0)
    assert made.losses["click"] == pytest.approx(0.5)


def test_a_log_gets_a_line_at_the_end(capsys):
    with fit_progress("train", 300) as watcher:
        for number in range(3):
            watcher.on_losses(number, {"click": 0.25})
            watcher.on_rows(100 * (number + 1), 100)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"train: 300 of 300 rows, [\d,]+ rows/s; click 0.25", line)


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_log_gets_whole_lines_whatever_is_said_of_colours(variable):
    script = (
        "from training.fit_progress import fit_progress\n"
        "from training.progress import bar\n"
        "with bar('features') as on_day, fit_progress('train', 300) as watcher:\n"
        "    on_day(1, 2)\n"
        "    watcher.on_rows(300, 300)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {variable: "1"}, capture_output=True, check=True
    )
    assert re.fullmatch(rb"train: 300 of 300 rows, [\d,]+ rows/s; no step\n", done.stderr)
