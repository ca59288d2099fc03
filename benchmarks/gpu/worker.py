"""The process that runs parts one after the other, and writes each one's end before the next begins.

`python -m benchmarks.gpu.worker JSON` is started by the bench. A part that fails ends the process: after some
errors of a GPU nothing more runs in it, and the bench starts another one for the rest.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import SkippedError
from recsys.resolve import resolve


def main() -> None:
    """Run the parts that are named."""
    asked = json.loads(sys.argv[1])
    sys.path[:0] = asked["paths"]
    results = Path(asked["results"])
    parent, settings = os.getppid(), None
    for name, function in asked["parts"].items():
        if os.getppid() != parent:  # the bench was killed
            return
        _note(results, {"part": name, "began": True})
        try:
            settings = settings or _settings(asked, results)
            said: dict[str, Any] = {"found": _run(function, settings)}
        except Exception as error:
            said = _failure(error)
        _note(results, {"part": name, **said})
        if "failed" in said:
            return


def _settings(asked: dict[str, Any], results: Path) -> Any:
    """Import torch and resolve the device, under the first part's limit of time."""
    from benchmarks.gpu.settings import Settings
    from recsys.device import resolve_device

    return Settings(
        device=resolve_device(asked["device"]),
        file=Path(asked["inputs"]),
        small=asked["small"],
        results=results,
    )


def _run(function: str, settings: Any) -> dict[str, Any]:
    call: Callable[[Any], dict[str, Any]] = resolve(function)
    return call(settings)


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, SkippedError):
        return {"skipped": str(error)}
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    return {"failed": f"{type(error).__name__}: {error} ({place})"[:2000]}


def _note(results: Path, said: dict[str, Any]) -> None:
    with results.open("a") as stream:
        stream.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
