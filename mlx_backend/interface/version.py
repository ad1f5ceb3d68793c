"""The version of the pack; pyproject.toml has the same one."""

VERSION = "0.1.0"
