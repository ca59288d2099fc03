"""The documents: every path, module, command and option that they name is there, and every link resolves."""

import importlib
import re
from pathlib import Path

import pytest
import typer

from recsys.cli import COMMANDS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if path.name != "CHANGELOG.md"  # it names what is gone, too
)
ROOMS = ("recsys", "features", "training", "serving", "protos", "benchmarks")
FOLDERS = (*ROOMS, "tests", "docs", "examples", "scripts", "requirements", "deploy", ".ci")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_and_module_is_there(document):
    text = (ROOT / document).read_text()
    near = (ROOT / document).parent
    wrong = [name for name in _names(text) if not _is_there(name) and not (near / name).exists()]
    assert not wrong, f"{document} names what is not there: {', '.join(wrong)}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_is_there(document):
    named = re.findall(r"`(tests/[^`\s]+\.py)::(\w+)", (ROOT / document).read_text())
    wrong = [f"{path}::{name}" for path, name in named if not _defines(ROOT / path, name)]
    assert not wrong, f"{document} names tests that are not there: {', '.join(wrong)}"


def test_every_failure_names_its_tests():
    lines = [line for line in (ROOT / "docs/failures.md").read_text().splitlines() if line.startswith("| ")]
    failures = [line for line in lines if not line.startswith(("| what fails", "| ---"))]
    assert len(failures) >= 20
    assert [line for line in failures if not re.search(r"::test_\w+` \|$", line)] == []


def _defines(path: Path, name: str) -> bool:
    return path.exists() and re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_resolves(document):
    path = ROOT / document
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = path if not name else (path.parent / name).resolve()
        if not linked.exists() or (anchor and anchor not in _anchors(linked.read_text())):
            wrong.append(target)
    assert not wrong, f"{document} links to what is not there: {', '.join(wrong)}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_and_option_is_there(document):
    wrong = []
    for line in _code(ROOT / document):
        words = line.split()
        if words[0] != "recsys" or len(words) < 2:
            continue
        name = next((n for n in (" ".join(words[1:3]), words[1]) if n in COMMANDS), None)
        if name is None:
            is_group = any(n.startswith(f"{words[1]} ") for n in COMMANDS)
            if not is_group and not words[1].startswith("-") and "…" not in line:
                wrong.append(line)
            continue
        options = re.findall(r"(?<=\s)--[a-z][a-z-]*", line)
        wrong += [f"{line}: {o}" for o in options if o not in _options(name)]
    assert not wrong, f"{document}: {'; '.join(wrong)}"


def _code(path: Path) -> list[str]:
    """Give the commands in blocks, one a line, and in backticks; of `a|b` the first is looked at."""
    text = path.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line.partition(" # ")[0] for block in blocks for line in block.splitlines()]
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [" ".join(name.split()) for name in re.findall(r"`([^`]+)`", outside)]
    return [re.sub(r"\|\S+", "", line.strip()) for line in lines if line.strip()]


def _names(text: str) -> list[str]:
    """Give what stands in backticks and looks like a path or a module of this repository."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = []
    for name in re.findall(r"`([^`\s]+)`", outside):
        plain = name.partition("::")[0].rstrip("/")
        is_path = plain.split("/")[0] in FOLDERS and "/" in plain
        is_module = re.fullmatch(rf"({'|'.join(ROOMS)})(\.\w+)+", plain) is not None
        if is_path or is_module:
            found.append(plain)
    return found


def _is_there(name: str) -> bool:
    if "/" in name:
        pattern = re.sub(r"\{[^}]*\}|NAME", "*", name)
        return any(ROOT.glob(pattern))
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        file = ROOT.joinpath(*parts[:end])
        if file.is_dir():
            return end == len(parts)
        if file.with_suffix(".py").is_file():
            rest = parts[end:]
            return not rest or (len(rest) == 1 and rest[0] in file.with_suffix(".py").read_text())
    return False


def _anchors(text: str) -> set[str]:
    """Give the anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _options(name: str) -> set[str]:
    module, function = COMMANDS[name][0].split(":")
    app = typer.Typer(add_completion=False)
    app.command()(getattr(importlib.import_module(module), function))
    command = typer.main.get_command(app)
    return {"--help", *(o for p in command.params for o in (*p.opts, *p.secondary_opts))}
