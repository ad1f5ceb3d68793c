"""Widgets made from the table of settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..mlx_backend.interface.continuation import Continuation
from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.interface.geometry import check_size
from ..mlx_backend.interface.segments import check_segments
from ..mlx_backend.interface.settings import ROWS, SETTINGS, Setting, complete
from ..mlx_backend.members.scail2 import MEMBER

DEFAULTS = MEMBER.defaults
CONTINUED = ("history", "colour_anchor")
SEGMENTS = ("segment_length", "segment_overlap")


def widget(setting: str, /, **changes: Any) -> io.Input:
    """Return the input of a setting, with other words or limits where a node means something else by it."""
    return as_input(replace(ROWS[setting], **changes))


def widgets(*names: str) -> list[io.Input]:
    """Return the inputs of several settings as they are."""
    return [widget(name) for name in names]


def checked(given: Mapping[str, Any]) -> bool | str:
    """Return True for sizes, segments and choices that a run can have, else the sentence that says what is allowed.

    ComfyUI asks before anything is queued, with None for what is linked; it leaves limits to whoever is asked.
    """
    values = {name: value for name, value in given.items() if value is not None}
    for name, value in values.items():
        row = SETTINGS[name]
        if row.choices:
            if value not in row.choices:
                return f"The {name} '{value}' is unknown: choose one of {', '.join(row.choices)}."
        elif not row.low <= value <= row.high:
            return f"The {name} is {value}, but it must be {row.low:g} to {row.high:g}."
    values = complete({name: values.get(name) for name in ("width", "height", *SEGMENTS, *CONTINUED)}, DEFAULTS)
    try:
        check_size(values["width"], values["height"])
        if not any(name in given and given[name] is None for name in SEGMENTS):
            check_segments(values["segment_length"], values["segment_overlap"])
        Continuation(history=values["history"], anchor=values["colour_anchor"])
    except RequestError as error:
        return str(error)
    return True


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
