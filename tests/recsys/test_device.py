"""The device's name: resolved once, refused with a remedy."""

import pytest
import torch

from recsys.device import CPU, resolve_device
from recsys.errors import ConfigError


def test_the_cpu_is_always_there():
    assert resolve_device("cpu") == CPU


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("cuda", "remedy"), [(None, "built without CUDA; install"), ("13.0", "CUDA 13.0 and finds no GPU; check")]
)
def test_a_gpu_that_is_not_there_is_an_error_with_a_remedy(monkeypatch, cuda, remedy):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(
        ConfigError, match=rf'\[training\] device = "cuda": torch {torch.__version__[:4]}.*{remedy}'
    ):
        resolve_device("cuda")
