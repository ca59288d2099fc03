"""`[serving] device`: what is chosen, what is said, and what a server tells of it."""

import faiss
import pytest
import structlog
import torch

from recsys.errors import ConfigError
from serving.devices import ON_CPU, Devices, choose_devices, with_engine

GPU = torch.device("cuda", 0)


@pytest.fixture
def torch_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.fixture
def faiss_for_cuda(monkeypatch):
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)


def test_the_processor_alone(monkeypatch, torch_gpu):
    assert choose_devices("cpu") == ON_CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_devices("auto") == ON_CPU


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_for_both(name, torch_gpu, faiss_for_cuda):
    assert choose_devices(name) == Devices(GPU, GPU)


def test_auto_searches_on_the_processor_where_faiss_has_no_cuda_and_says_so(torch_gpu):
    with structlog.testing.capture_logs() as said:
        assert choose_devices("auto") == Devices(GPU, torch.device("cpu"))
    assert [line["event"] for line in said] == ["items_searched_on_cpu"]
    assert "install faiss-gpu" in said[0]["reason"]


def test_cuda_names_what_is_missing(torch_gpu, monkeypatch):
    with pytest.raises(
        ConfigError, match=r'\[serving\] device = "cuda": faiss .* built without CUDA; install'
    ):
        choose_devices("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r'\[serving\] device = "cuda": torch'):
        choose_devices("cuda")


@pytest.mark.parametrize("name", ["auto", "eager", "bfloat16"])
def test_an_engine_that_can_be_had(name, monkeypatch):
    monkeypatch.setattr("serving.devices.has_fast_bf16", lambda _: True)
    assert with_engine(ON_CPU, name) == Devices(engine=name)


def test_bfloat16_where_it_cannot_be_had_is_an_error(monkeypatch):
    with pytest.raises(ConfigError, match=r'engine = "bfloat16": a GPU scores here; write "auto" or "eager"'):
        with_engine(Devices(GPU, GPU), "bfloat16")
    monkeypatch.setattr("serving.devices.has_fast_bf16", lambda _: False)
    with pytest.raises(ConfigError, match='engine = "bfloat16": this processor does not multiply bfloat16'):
        with_engine(ON_CPU, "bfloat16")
    assert with_engine(ON_CPU, "auto").engine == "auto"
