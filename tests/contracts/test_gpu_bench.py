"""Parts of `benchmarks/gpu.sh` on a second device: nothing is left behind, the losses are the CPU's."""

import pytest

from benchmarks.gpu.click_log import measure_click_log
from benchmarks.gpu.input_file import write_tensors
from benchmarks.gpu.make_inputs import product_inputs
from benchmarks.gpu.product import compare_with_cpu, measure_product
from benchmarks.gpu.scoring import measure_scoring
from benchmarks.gpu.settings import Settings


@pytest.fixture(scope="module")
def file(shop_chain, config, tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "inputs"
    write_tensors(path, *product_inputs(shop_chain, config, 0, {48: 2}))
    return path


@pytest.fixture
def settings(pretend, file, tmp_path):
    results = tmp_path / "results"
    results.touch()
    return Settings(device=pretend, file=file, small=True, results=results)


def test_the_product_model(settings):
    found = measure_product(settings)["by_batch_size_and_precision"]
    assert set(found) == {"48 fp32", "48 bf16"}


def test_the_click_log(settings, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.click_log.BATCH_SIZES", (64,))
    monkeypatch.setattr("benchmarks.gpu.click_log.SMALL_ROWS", 256)
    found = measure_click_log(settings)["by_batch_size_and_precision"]
    assert found["64 fp32"]["samples_per_second_with_cutting"] > 0


def test_losses_and_logits_are_the_cpus(settings):
    found = compare_with_cpu(settings)
    assert found["agree"]
    assert max(found["relative_difference_of_last_mean"]["fp32"].values()) < 1e-3
    assert measure_scoring(settings)["agree"]
