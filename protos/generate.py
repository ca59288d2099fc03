"""Write the stubs of `protos/**/*.proto`: `python -m protos.generate` from the repository root.

protoc runs from the root, so that stubs import as `protos.recsys.v1.ranking_pb2`. `--check` generates into a
temporary folder and compares, so that CI refuses stubs older than their .proto.
"""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def main(argv: list[str] | None = None) -> int:
    """Generate, or with --check compare; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m protos.generate", description="Write the protobuf stubs."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a stub is stale")
    if not parser.parse_args(argv).check:
        generate(ROOT)
        return 0
    stale = stale_stubs()
    for stub in stale:
        print(f"{stub} is stale: run `python -m protos.generate` and commit it", file=sys.stderr)
    return 1 if stale else 0


def generate(out: Path) -> None:
    """Run protoc with the Python, gRPC and typing plugins; stubs appear under `out/protos`.

    Raises: SystemExit, with protoc's own message on stderr, when a .proto does not compile.
    """
    from grpc_tools import protoc

    well_known = files("grpc_tools") / "_proto"
    arguments = ["protoc", f"--proto_path={ROOT}", f"--proto_path={well_known}"]
    arguments += [f"--{plugin}_out={out}" for plugin in ("python", "grpc_python")]
    arguments += [f"--{plugin}_out=quiet:{out}" for plugin in ("mypy", "mypy_grpc")]
    arguments += _plugins()
    code = protoc.main([*arguments, *(str(source.relative_to(ROOT)) for source in _sources())])
    if code:
        raise SystemExit(code)


def stale_stubs() -> list[Path]:
    """List stubs, relative to the root, that are missing or differ from what protoc writes now."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        return [
            stub
            for source in _sources()
            for stub in (source.relative_to(ROOT).with_name(source.stem + suffix) for suffix in SUFFIXES)
            if _content(ROOT / stub) != _content(Path(folder) / stub)
        ]


def _sources() -> list[Path]:
    return sorted((ROOT / "protos").rglob("*.proto"))


def _plugins() -> list[str]:
    """Name the typing plugins by path: the environment's bin folder is not always on PATH."""
    folder = Path(sys.executable).parent
    return [f"--plugin={name}={folder / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
