"""Presets as numbers that connect to the sampler's widgets, for those who would rather not choose them."""

from __future__ import annotations

from pathlib import PurePath

from comfy_api.latest import io

from ..mlx_backend.interface.events import Listener
from ..mlx_backend.interface.geometry import SIZE_STEP
from ..mlx_backend.interface.presets import LORA_FILES, ORIENTATIONS, PRESETS, SIZES, Preset, find_preset, size_of
from ..mlx_backend.interface.requests import LoraRequest, SamplingSettings
from ..mlx_backend.interface.variants import GRIDS, SOLVERS
from . import host, sockets

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
            search_aliases=["scail", "preset", "fast", "quality", "size", "resolution"],
            inputs=[*_choices(), *_overrides()],
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
    ) -> io.NodeOutput:
        """Return steps, cfg, shift, solver, grid, width and height, and show them."""
        chosen, (width, height) = find_preset(preset), size_of(size, orientation)
        width, height = override_width or width, override_height or height
        settings = chosen.settings(
            width,
            height,
            steps=override_steps or None,
            cfg=override_cfg or None,
            shift=override_shift or None,
            solver=None if override_solver == AS_PRESET else override_solver,
            grid=None if override_grid == AS_PRESET else override_grid,
        )
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


def _overrides() -> list[io.Input]:
    return [
        io.Int.Input(
            "override_steps",
            default=0,
            min=0,
            max=1000,
            optional=True,
            tooltip="Steps in place of the preset's; 0: as the preset.",
        ),
        io.Float.Input(
            "override_cfg",
            default=0.0,
            min=0.0,
            max=30.0,
            step=0.1,
            optional=True,
            tooltip="cfg in place of the preset's; 0: as the preset. For no guidance, set 1.",
        ),
        io.Float.Input(
            "override_shift",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.1,
            optional=True,
            tooltip="Shift in place of the preset's; 0: as the preset.",
        ),
        io.Combo.Input(
            "override_solver",
            options=[AS_PRESET, *SOLVERS],
            default=AS_PRESET,
            optional=True,
            tooltip="Solver in place of the preset's.",
        ),
        io.Combo.Input(
            "override_grid",
            options=[AS_PRESET, *GRIDS],
            default=AS_PRESET,
            optional=True,
            tooltip="Sigma grid in place of the preset's.",
        ),
        io.Int.Input(
            "override_width",
            default=0,
            min=0,
            max=4096,
            step=SIZE_STEP,
            optional=True,
            tooltip="Width in pixels in place of the size's, a multiple of 32; 0: as the size.",
        ),
        io.Int.Input(
            "override_height",
            default=0,
            min=0,
            max=4096,
            step=SIZE_STEP,
            optional=True,
            tooltip="Height in pixels in place of the size's, a multiple of 32; 0: as the size.",
        ),
    ]
