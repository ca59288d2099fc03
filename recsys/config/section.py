"""What every section of the config is: frozen, and refusing keys it does not know."""

from pydantic import ConfigDict

from recsys.config_view import Viewable


class Section(Viewable):
    """One table of the TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
