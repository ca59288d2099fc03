"""How many threads torch may use, set once by the commands."""

import torch


def use_threads(count: int) -> None:
    """Say how many threads one step of learning or scoring may use (`[training] threads`)."""
    torch.set_num_threads(count)
