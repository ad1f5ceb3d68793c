"""Presets as numbers that connect to the sampler's widgets, for those who would rather not choose them."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..mlx_backend.interface.events import Listener
from ..mlx_backend.interface.limits import Limits
from ..mlx_backend.interface.presets import (
    LORA_FILES,
    ORIENTATIONS,
    PRESETS,
    SIZES,
    Preset,
    check_distilled,
    find_preset,
    size_of,
)
from ..mlx_backend.interface.requests import LoraRequest, SamplingSettings
from ..mlx_backend.interface.settings import SETTINGS, sampling_of
from ..mlx_backend.interface.variants import GRIDS, SOLVERS
from . import host, sockets
from .settings import DEFAULTS, widget

if TYPE_CHECKING:
    from ..mlx_backend.pipelines.store import Handle

AS_PRESET = "as preset"
UNTRIED = "Nobody has tried the presets on the real weights."


class Scail2Settings(io.ComfyNode):
    """A preset and a size in, plain values out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2Settings",
            display_name="SCAIL-2 Settings (MLX)",
            category=sockets.CATEGORY,
            description="Values that go together, for the SCAIL-2 Sampler: connect each output to the sampler's widget "
            f"of the same name. Any value can be overridden. {UNTRIED}",
            search_aliases=["scail", "preset", "fast", "distilled", "quality", "size", "resolution"],
            inputs=[*_choices(), *_overrides(), _model()],
            outputs=[
                io.Int.Output("steps", display_name="steps"),
                io.Float.Output("cfg", display_name="cfg"),
                io.Float.Output("shift", display_name="shift"),
                io.Combo.Output("solver", display_name="solver", options=list(SOLVERS)),
                io.Combo.Output("grid", display_name="grid", options=list(GRIDS)),
                io.Int.Output("width", display_name="width"),
                io.Int.Output("height", display_name="height"),
            ],
        )

    @classmethod
    def execute(
        cls,
        preset: str,
        size: str,
        orientation: str,
        override_steps: int = 0,
        override_cfg: float = 0.0,
        override_shift: float = 0.0,
        override_solver: str = AS_PRESET,
        override_grid: str = AS_PRESET,
        override_width: int = 0,
        override_height: int = 0,
        model=None,
    ) -> io.NodeOutput:
        """Return steps, cfg, shift, solver, grid, width and height, and show them."""
        if model is not None:
            _check_model(preset, model)
        chosen, (width, height) = find_preset(preset), size_of(size, orientation)
        width, height = override_width or width, override_height or height
        given = {"steps": override_steps, "cfg": override_cfg, "shift": override_shift}
        choices = {"solver": override_solver, "grid": override_grid}
        own = {name: value for name, value in given.items() if value}
        own |= {name: value for name, value in choices.items() if value != AS_PRESET}
        settings = sampling_of(chosen.values(width, height) | own, DEFAULTS)
        told = f"{_in_words(settings)}, {width}x{height}: {settings.passes} passes of the model per segment."
        host.HostListener().note(" ".join(part for part in (told, chosen.needs, UNTRIED) if part))
        return io.NodeOutput(
            settings.steps, settings.cfg, settings.shift, settings.solver, settings.grid, width, height
        )


def published_loras(preset: Preset) -> dict[str, LoraRequest]:
    """Return those of a preset's LoRAs that lie in ComfyUI's folder under a published name, by the preset's names."""
    there = {PurePath(name).stem.lower(): name for name in reversed(host.model_files(("loras",)))}
    found = {}
    for lora, strength in preset.loras:
        names = [there[file.lower()] for file in LORA_FILES[lora] if file.lower() in there]
        path = host.model_path(("loras",), names[0]) if names else None
        if path is not None:
            found[lora] = LoraRequest(path, strength)
    return found


def preset_loras(preset: Preset, listener: Listener) -> tuple[LoraRequest, ...]:
    """Return the same, and say which there are and which not."""
    found = published_loras(preset)
    for request in found.values():
        listener.note(f"The LoRA {request.path.name} is used at {request.strength:g}.")
    missing = [f"{lora} ({' or '.join(LORA_FILES[lora])})" for lora, _ in preset.loras if lora not in found]
    if missing:
        listener.warn(f"Not found in models/loras: {', '.join(missing)}. {preset.needs}")
    return tuple(found.values())


def _check_model(preset: str, model: Handle) -> None:
    """Raise RequestError for a model without any LoRA where the preset needs one; a small one knows its own recipe."""
    if not Limits.of(model.store.snapshot.settings).values:
        loras = [lora for lora, _ in find_preset(preset).loras] if model.loras else []
        check_distilled(preset, loras, "put SCAIL-2 LoRA between loader and sampler, and connect its model here")


def _in_words(settings: SamplingSettings) -> str:
    return (
        f"{settings.solver} on the {settings.grid} grid, {settings.steps} steps, cfg {settings.cfg:g}, "
        f"shift {settings.shift:g}"
    )


def _described(name: str, preset: Preset) -> str:
    """Return a preset's values in one line; the shift as a number where it does not follow the size."""
    shift = "upstream's shift (3, or 5 at 704p)" if preset.shift is None else f"shift {preset.shift:g}"
    loras = "".join(f", LoRA {lora} {strength:g}" for lora, strength in preset.loras)
    return f"{name}: {preset.solver}, {preset.grid} grid, {preset.steps} steps, cfg {preset.cfg:g}, {shift}{loras}."


def _choices() -> list[io.Input]:
    return [
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            default="quality",
            tooltip=" ".join([*(_described(*row) for row in PRESETS.items()), UNTRIED]),
        ),
        io.Combo.Input(
            "size",
            options=list(SIZES),
            default=next(iter(SIZES)),
            tooltip="Width and height in landscape. 704p has twice the tokens of 896x512, and takes more than twice as "
            "long.",
        ),
        io.Combo.Input(
            "orientation",
            options=list(ORIENTATIONS),
            default=ORIENTATIONS[0],
            tooltip="portrait swaps width and height. The sampler swaps them by itself to the reference's orientation, "
            "unless you turn its follow_orientation off.",
        ),
    ]


def _model() -> io.Input:
    return sockets.Model.Input(
        "model",
        optional=True,
        tooltip="What the sampler gets, from SCAIL-2 LoRA: a preset that is made for LoRAs is then refused where the "
        "model has none.",
    )


def _overrides() -> list[io.Input]:
    """The sampler's settings, each with a value that means: as the preset."""
    words = {
        "steps": "Steps in place of the preset's; 0: as the preset.",
        "cfg": "cfg in place of the preset's; 0: as the preset. For no guidance, set 1.",
        "shift": "Shift in place of the preset's; 0: as the preset.",
        "solver": "Solver in place of the preset's.",
        "grid": "Sigma grid in place of the preset's.",
        "width": "Width in pixels in place of the size's, a multiple of 32; 0: as the size.",
        "height": "Height in pixels in place of the size's, a multiple of 32; 0: as the size.",
    }
    return [_override(name, tooltip) for name, tooltip in words.items()]


def _override(name: str, tooltip: str) -> io.Input:
    row = SETTINGS[name]
    words = {"name": f"override_{name}", "tooltip": tooltip, "optional": True, "advanced": False}
    if row.choices:
        return widget(name, choices=(AS_PRESET, *row.choices), default=AS_PRESET, **words)
    zero = type(row.value(DEFAULTS))()
    return widget(name, low=zero, default=zero, **words)
