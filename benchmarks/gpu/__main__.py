"""What `benchmarks/gpu.sh` starts: run the parts in a worker process, write one JSON file."""

import argparse
import json
import os
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.parent import run_parts
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.wheels import unpacked_wheels
from recsys.files import write_whole

INPUTS = Path("gpu-inputs.npz")
LIMIT_S = 330.0


def main() -> None:
    """Read the arguments and run; exits with 1 when a part failed."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh", description="Measure the model on a GPU")
    add = parser.add_argument
    add("--inputs", type=Path, default=INPUTS, help="made by `recsys bench gpu-inputs FILE`")
    add("--device", choices=("auto", "cuda", "cpu"), default="cuda")
    add("--json", type=Path, help="where to write; default: gpu.json in $OUT, or here")
    add("--wheels", type=Path, help="folder of wheels (faiss-gpu, fbgemm-gpu) to import from")
    add("--seconds", type=float, default=LIMIT_S, help="for all parts together")
    add("--part", action="append", choices=list(PARTS), help="only this one; may be given again")
    add("--small", action="store_true", help="measure each figure for a moment: for tests")
    args = parser.parse_args()
    lacking = [name for name in ("numpy", "torch") if find_spec(name) is None]
    if lacking:
        parser.exit(
            2,
            f"{parser.prog}: {sys.executable} has no {' and no '.join(lacking)}; put a python3 with numpy "
            "and torch first on PATH, as in PATH=.venv/bin:$PATH benchmarks/gpu.sh\n",
        )
    # An ended bench must not leave its worker behind: `finally` runs on an exit, not on a signal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    target = args.json or Path(os.environ.get("OUT", ".")) / "gpu.json"
    if not target.parent.is_dir():
        parser.error(f"--json {target}: there is no folder {target.parent}")
    with tempfile.TemporaryDirectory(prefix="recsys-gpu-") as scratch:
        asked = {
            "inputs": str(args.inputs),
            "device": args.device,
            "small": args.small,
            "paths": [str(folder) for folder in unpacked_wheels(args.wheels, Path(scratch))],
            "results": str(Path(scratch) / "results.jsonl"),
        }
        chosen = [name for name in PARTS if not args.part or name in args.part]
        tree = run_parts(chosen, asked, args.seconds, lambda tree: _write(tree, target))
    print(f"written to {target}", flush=True)
    sys.exit(any("failed" in part for part in tree["parts"].values()))


def _write(tree: dict[str, object], target: Path) -> None:
    """Write what is known so far: who ends this program loses one part at most."""
    write_whole(target, json.dumps(tree, indent=1) + "\n")


if __name__ == "__main__":
    main()
