"""One night a day in Airflow 2.4 or later, 3 included; a backfill runs missed days in order."""

import subprocess
from datetime import datetime, timedelta

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable

NIGHT = "/opt/recsys/examples/schedulers/night.sh"
FOLDERS = {
    "RECSYS_CONFIG": "/etc/recsys/shop.toml",
    "RECSYS_LOG": "/var/lib/recsys/log",
    "RECSYS_RUNS": "/var/lib/recsys/runs",
    "PATH": "/opt/recsys/bin:/usr/bin:/bin",
}
TRY_AGAIN = 75


@dag(
    # Of a plain cron text Airflow 3 would make runs of the day that begins, not of the one that is over.
    schedule=CronDataIntervalTimetable("30 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1),
    catchup=True,
    max_active_runs=1,  # nights go on from each other
    default_args={"retries": 4, "retry_delay": timedelta(minutes=15)},
)
def recsys_night() -> None:
    """Run the night of the day that the run is of."""

    @task
    def night(ds: str | None = None) -> None:  # Airflow refuses any other default
        code = subprocess.run([NIGHT, str(ds)], env=FOLDERS, check=False).returncode
        if code == TRY_AGAIN:
            raise RuntimeError(f"the night of {ds} is to be tried again")
        if code != 0:
            raise AirflowFailException(f"somebody has to look at the night of {ds} (exit code {code})")

    night()


recsys_night()
