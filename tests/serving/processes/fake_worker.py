"""A worker that starts in milliseconds; RUNS/worker-N has a word for each start, which it obeys."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from serving.processes.lifeline import hold_lifeline

order = json.loads(sys.stdin.readline())
runs, number = Path(order["settings"]["runs"]), order["seat"]["number"]
script = runs / f"worker-{number}"
first, *following = script.read_text().split()
if following:
    script.write_text("\n".join(following))
with (runs / "starts").open("a") as stream:
    stream.write(f"{number} {os.getpid()} {first}\n")


def report(**fields: object) -> None:
    os.write(order["report_fd"], json.dumps(fields).encode() + b"\n")


def drain(*_: object) -> None:
    (runs / f"drained-{number}").touch()
    sys.exit(0)


hold_lifeline(60)
if first == "refuse":
    report(error="the store is on fire", exit_code=6)
    sys.exit(6)
if first == "die":
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN if first == "deaf" else drain)
if first != "hang":
    report(bundle="bundle v1")
while True:
    time.sleep(60)
