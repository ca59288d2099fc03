"""What ends a training that cannot go on."""

from recsys.errors import ConfigError, RecsysError


class DivergedError(ConfigError):
    """Raised when a loss or its gradient is not finite any more, or explodes: the settings do not train."""

    def __init__(self, message: str, step: int | None = None) -> None:
        """Keep the step; None: the one that was about to be made."""
        super().__init__(message)
        self.step = step


class RankError(RecsysError):
    """Raised when one of several processes of a training dies; the others are ended."""
