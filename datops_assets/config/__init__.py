"""Settings of this installation, and the only code that reads the environment."""

from datops_assets.config.settings import Settings, expand, read_secret, read_settings

__all__ = ["Settings", "expand", "read_secret", "read_settings"]
