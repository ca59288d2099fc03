"""A cold start of the product model on the shop's days, timed, in the code of whatever checkout runs it.

The bench starts it with `PYTHONPATH` at this checkout, and for `--before REV` at one of REV: it imports only
what both have, and nothing of the benchmarks. One line of JSON comes out. Encoding the days, cutting batches
and making all steps are timed, as the night does them; building snapshots is not.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from features.build import build_snapshots
from features.definitions import read_config
from recsys.log import InteractionLog
from recsys.stages import Stages
from training.threads import use_threads
from training.train import train


def main() -> None:
    """Build what is missing of the snapshots, train on all days, and print the figures."""
    parser = argparse.ArgumentParser(description="Time a cold start of the product model")
    parser.add_argument("--config", type=Path, help="the run's TOML file; default: the simulated shop's")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument(
        "--stages", type=Path, required=True, help="of this code alone: others write other snapshots"
    )
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each; not of earlier code")
    parser.add_argument("--build-only", action="store_true")
    print(json.dumps(run(parser.parse_args())), flush=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Give rows and seconds of `fit`, which pulls the batches through encoding and cutting."""
    use_threads(args.threads)
    config = read_config(args.config)
    log = InteractionLog(args.log)
    days = build_snapshots(log, log.require_days("impressions")[-1], config, Stages(args.stages))
    if args.build_only:
        return {"days": len(days)}
    every = (0, len(days) - 1)
    training = config.training.model_copy(update={"precision": args.precision})
    config = config.model_copy(update={"training": training})
    periods = {task.name: every for task in config.tasks}
    if args.processes == 1:
        done = train(days, periods, config, None, 1).log
        seconds = done.seconds
    else:
        # Days are encoded before the ranks start: the whole training is timed, their start included.
        from training.host_choice import HostChoice

        choice = HostChoice(precision=args.precision, processes=args.processes)
        began = time.perf_counter()
        with TemporaryDirectory(prefix="recsys-bench-") as folder:
            done = train(days, periods, config, None, 1, folder=Path(folder), choice=choice).log
        seconds = time.perf_counter() - began
    return {"rows": done.rows, "seconds": seconds, "losses": done.mean_losses()}


if __name__ == "__main__":
    main()
