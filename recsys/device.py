"""The device of training and of serving: `[training] device` and `[serving] device`, resolved here alone."""

import torch

from recsys.errors import ConfigError

CPU = torch.device("cpu")


def resolve_device(name: str, section: str = "training") -> torch.device:
    """Give the device of a name of a section's `device`; `auto` is the GPU where there is one.

    Raises: ConfigError when `cuda` is asked for and this process has none; it names the installed torch.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f'[{section}] device = "cuda": {_why_no_gpu()}; or write "cpu" or "auto"')
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    # With its number, so that it equals the device of the tensors that are moved to it.
    return torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def _why_no_gpu() -> str:
    build = f"torch {torch.__version__}"
    if torch.version.cuda is None:
        return f"{build} is built without CUDA; install the build for CUDA (`make setup VARIANT=cuda`)"
    return (
        f"{build} is built for CUDA {torch.version.cuda} and finds no GPU; check that `nvidia-smi` lists one "
        "and that its driver is new enough"
    )


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether a device, this processor or a GPU, multiplies bfloat16 matrices natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return (
        bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )
