"""What a test sets up of the logs does not reach the next one; these run in their order."""

import structlog

from serving.json_logs import configure_logs


def test_a_command_sets_up_the_logs_of_this_process() -> None:
    configure_logs()
    assert structlog.is_configured()


def test_the_next_test_has_logs_of_its_own() -> None:
    assert not structlog.is_configured()
