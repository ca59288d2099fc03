"""What ends a training that cannot go on."""

from recsys.errors import ConfigError


class DivergedError(ConfigError):
    """Raised when a loss or its gradient is not finite any more: the settings do not train."""
