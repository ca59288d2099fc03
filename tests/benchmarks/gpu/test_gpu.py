"""`benchmarks/gpu.sh` where torch and numpy are all there is; its inputs; parts that fail, die or hang."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import parent
from benchmarks.gpu.__main__ import LIMIT_S
from benchmarks.gpu.input_file import InputError, read_tensors, write_tensors
from benchmarks.gpu.inputs import ProductInputs
from benchmarks.gpu.make_inputs import make_inputs, parse_batches, product_inputs
from benchmarks.gpu.parts import PARTS, Part
from recsys.errors import ConfigError
from training.trainer.batch_file import batch_tensors

ROOT = Path(__file__).parents[3]
SIZE = 48


@pytest.fixture(scope="module")
def made(shop_chain, config):
    """Give the values and tensors of a few small batches."""
    return product_inputs(shop_chain, config, 0, {SIZE: 2})


@pytest.fixture(scope="module")
def inputs_file(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "inputs.npz"
    write_tensors(path, *made)
    return path


def _run(paths, *args):
    python = str(Path(sys.executable).parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    env["PATH"] = python + os.pathsep + env["PATH"]
    command = ["sh", str(ROOT / "benchmarks" / "gpu.sh"), "--device", "cpu", "--small", *map(str, args)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env)


def test_a_bare_machine_measures_all_but_what_it_lacks(inputs_file, tmp_path):
    chosen = [part for part in PARTS if part not in ("rates", "click_log", "profile", "forms")]
    names = [word for part in chosen for word in ("--part", part)]
    target = tmp_path / "found.json"
    done = _run([ROOT / "tests" / "bare_machine"], "--inputs", inputs_file, "--json", target, *names)
    assert done.returncode == 0, done.stdout + done.stderr
    tree = json.loads(target.read_text())
    parts = tree["parts"]
    assert list(parts) == chosen
    assert {name for name, said in parts.items() if "skipped" in said} == {"waits", "faiss", "fbgemm"}
    assert parts["faiss"]["skipped"].startswith("faiss is not installed")
    assert "faiss: skipped: faiss is not installed" in done.stdout
    assert parts["machine"]["torch"] == torch.__version__
    speed = parts["product"]["by_batch_size_and_precision"][f"{SIZE} fp32"]
    assert speed["samples_per_second"] > 0
    assert speed["flop_per_step"] > 1e6
    assert parts["agreement"]["agree"]
    assert parts["scoring"]["agree"]
    assert parts["scoring"]["p99_ms"] >= parts["scoring"]["p50_ms"] > 0
    assert tree["seconds"] > 0


def test_inputs_come_back_as_they_were_written(made, inputs_file):
    said, tensors = read_tensors(inputs_file)
    assert said == json.loads(json.dumps(made[0]))
    assert list(tensors) == list(made[1])
    for name, tensor in made[1].items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name
    inputs = ProductInputs.read(inputs_file)
    assert len(inputs.requests) == 64
    assert [batch.size > SIZE - 8 for batch in inputs.batches[SIZE]] == [True, True]
    again = batch_tensors(inputs.batches[SIZE][1])
    assert all(torch.equal(again[k], made[1][f"batch-{SIZE}-1/{k}"]) for k in again)


def test_packing_is_narrow_and_keeps_every_value(tmp_path):
    tensors = {
        "wide": torch.tensor([0, 2**40, -1]),
        "narrow": torch.arange(1000) % 7,
        "recurring": torch.rand(3, 50).repeat(400, 1),
        "none": torch.zeros(0, 4),
    }
    write_tensors(tmp_path / "file", {"a": 1}, tensors)
    said, found = read_tensors(tmp_path / "file")
    assert said == {"a": 1}
    assert all(torch.equal(found[name], t) and found[name].dtype == t.dtype for name, t in tensors.items())
    with np.load(tmp_path / "file") as arrays:
        assert arrays["narrow"].dtype == np.uint8
        assert arrays["recurring:rows"].shape == (3, 50)


def test_what_is_no_file_of_inputs_is_said(tmp_path, inputs_file):
    other = tmp_path / "other.npz"
    np.savez(other, a=np.zeros(3))
    torn = tmp_path / "torn.npz"
    torn.write_bytes(inputs_file.read_bytes()[:-500])
    for path in (other, torn):
        with pytest.raises(InputError, match="recsys bench gpu-inputs"):
            read_tensors(path)


def test_a_folder_that_is_not_there_is_said_before_days_are_simulated(tmp_path, config, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.make_inputs.shop_log", None)
    with pytest.raises(ConfigError, match=r"there is no folder .*none; make it"):
        make_inputs(tmp_path / "none" / "x.npz", config, None, 0)


@pytest.mark.parametrize("text", ["2048", "a:b", "2048:0", "0:1"])
def test_batches_that_cannot_be_read_are_refused(text):
    with pytest.raises(ConfigError):
        parse_batches(text)
    assert parse_batches("2048:8,64:1") == {2048: 8, 64: 1}


def _parts(monkeypatch, tmp_path, limit_s, **functions):
    """Run odd parts; give what is known of each, and every state that was written on the way."""
    monkeypatch.setattr(parent, "PARTS", {n: Part(f"odd_parts:{f}", 20) for n, f in functions.items()})
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT)]))
    asked = {"inputs": "", "device": "cpu", "small": True, "paths": [], "results": str(tmp_path / "r.jsonl")}
    written = []
    tree = parent.run_parts(list(functions), asked, limit_s, lambda t: written.append(list(t["parts"])))
    return tree["parts"], written


def test_a_part_that_fails_or_dies_costs_itself_alone(monkeypatch, tmp_path):
    found, written = _parts(monkeypatch, tmp_path, 60, a="works", b="raises", c="dies", d="works")
    assert "RuntimeError: out of memory (odd_parts.py:" in found["b"]["failed"]
    assert found["c"]["failed"] == "the process ended with code 7"
    assert found["a"] == found["d"] == {"line": "fine", "device": "cpu"}
    assert written == [["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]]


def test_what_matters_most_has_its_time_whatever_the_others_take():
    limits = [part.limit_s for part in PARTS.values()]
    assert sum(limits[: list(PARTS).index("scoring") + 1]) <= LIMIT_S
    assert {"product", "click_log", "agreement"} < set(list(PARTS)[: list(PARTS).index("scoring")])


def test_the_limit_of_all_parts_is_kept(monkeypatch, tmp_path):
    found, _ = _parts(monkeypatch, tmp_path, 1, a="hangs", b="works")
    more = "give more with --seconds, or run fewer parts with --part NAME"
    assert re.fullmatch(f"not done after . s, as all time is over; {more}", found["a"]["failed"])
    assert found["b"] == {"skipped": f"no time was left of 1 s; {more}"}


def test_a_python_without_torch_is_named_in_one_sentence(tmp_path):
    """And where torch is broken, each part says so in a line."""
    hide = "import sys, importlib.machinery as m; f = m.PathFinder.find_spec\n"
    hide += "m.PathFinder.find_spec = lambda n, *a: None if n == 'torch' else f(n, *a)\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    done = _run([tmp_path], "--json", tmp_path / "j")
    assert done.returncode == 2
    said = r"benchmarks/gpu.sh: /.*python\S* has no torch; put .* as in PATH=\.venv/bin:\$PATH .*\n"
    assert re.fullmatch(said, done.stderr)
    (tmp_path / "sitecustomize.py").unlink()
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13 is missing')")
    done = _run([tmp_path], "--json", tmp_path / "j", "--part", "machine", "--part", "faiss")
    assert done.stdout.count("failed: OSError: libcudart.so.13 is missing") == 2, done.stdout
    assert "Traceback" not in done.stderr


def test_wheels_are_imported_from_where_they_were_unpacked(inputs_file, tmp_path):
    with zipfile.ZipFile(tmp_path / "faiss_gpu-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("faiss/__init__.py", "raise OSError('libcudart.so.13 is missing')")
    (tmp_path / "torn.whl").write_text("no zip")
    done = _run(
        [], "--inputs", inputs_file, "--json", tmp_path / "j", "--wheels", tmp_path, "--part", "faiss"
    )
    assert "skipped: torn.whl is no wheel" in done.stderr
    said = json.loads((tmp_path / "j").read_text())["parts"]["faiss"]["skipped"]
    assert said == "faiss cannot be imported: libcudart.so.13 is missing"
