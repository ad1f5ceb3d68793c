"""Widgets made from the table of settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..mlx_backend.interface.settings import SETTINGS, Setting
from ..mlx_backend.members.scail2 import MEMBER

DEFAULTS = MEMBER.defaults


def widget(setting: str, /, **changes: Any) -> io.Input:
    """Return the input of a setting, with other words or limits where a node means something else by it."""
    return as_input(replace(SETTINGS[setting], **changes))


def widgets(*names: str) -> list[io.Input]:
    """Return the inputs of several settings as they are."""
    return [widget(name) for name in names]


def as_input(row: Setting) -> io.Input:
    """Return a row as an input; its kind is that of its default."""
    default = row.value(DEFAULTS)
    words: dict[str, Any] = {"tooltip": row.tooltip, "optional": row.optional, "advanced": row.advanced or None}
    if row.choices:
        return io.Combo.Input(row.name, options=list(row.choices), default=default, **words)
    if isinstance(default, bool):
        return io.Boolean.Input(row.name, default=default, **words)
    limits = {"min": row.low, "max": row.high, "step": row.step}
    if isinstance(default, float):
        return io.Float.Input(row.name, default=default, **limits, **words)
    if row.name == "seed":
        words["control_after_generate"] = True
    return io.Int.Input(row.name, default=default, **limits, **words)
