"""Settings that go together, and sizes: data, and how a user's own values take their place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import RequestError
from .variants import GRIDS

Row = TypeVar("Row")

ORIENTATIONS = ("landscape", "portrait")
SHIFTS = (3.0, 5.0)  # upstream's: of its command line, which is for 512p, and of its pipeline, for 704p
HIGH = 608  # pixels of the shorter side from which the second one is taken: halfway from 512 to 704


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A recipe for a run; a `shift` of None is upstream's for the size.

    `loras`: what it was made for, as (name, strength). None of the presets has been tried on the real weights.
    """

    steps: int
    cfg: float
    solver: str
    grid: str = GRIDS[0]
    shift: float | None = None
    loras: tuple[tuple[str, float], ...] = ()

    def values(self, width: int, height: int) -> dict[str, Any]:
        """Return its settings (see interface/settings.py) at a size in pixels."""
        shift = upstream_shift(width, height) if self.shift is None else self.shift
        return {"steps": self.steps, "cfg": self.cfg, "shift": shift, "solver": self.solver, "grid": self.grid}

    @property
    def needs(self) -> str:
        """What it was made for as a sentence; "" for the model alone."""
        if not self.loras:
            return ""
        listed = " and ".join(f"{name} at {strength:g}" for name, strength in self.loras)
        return f"This preset is made for the LoRAs {listed}: the model alone wants more steps, and guidance."


# "fast" is ComfyUI's template for SCAIL-2, whose nodes are wired so that the shift is 8; "distilled" is what lightx2v
# was trained for: levels 1000, 750, 500 and 250, shifted by 5, which are no whole timesteps; "balanced" is what another
# port on MLX (xocialize/scail-2-mlx) reports to match upstream's 40 steps; "quality" is upstream's.
PRESETS = {
    "fast": Preset(steps=6, cfg=1.0, shift=8.0, solver="euler", grid="simple", loras=(("lightx2v", 0.8), ("DPO", 1.0))),
    "distilled": Preset(steps=4, cfg=1.0, shift=5.0, solver="euler", grid="simple", loras=(("lightx2v", 1.0),)),
    "balanced": Preset(steps=16, cfg=5.0, solver="dpm++"),
    "quality": Preset(steps=40, cfg=5.0, solver="unipc"),
}
# How the files of these LoRAs are called where they are published, without their endings; the first that is there is
# taken. Other files of such names are for other models (Wan 2.2, text to video).
LORA_FILES = {
    "lightx2v": (
        "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16",
        "lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16",
        "Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64",
    ),
    "DPO": ("wan2.1_SCAIL_2_DPO_lora_bf16", "bias-aware-dpo-lora"),
}
DISTILLING = "lightx2v"  # without it few steps do not do

# Width and height in landscape, by the name under which upstream's weights are known.
SIZES = {"512p (896x512)": (896, 512), "512p (832x480)": (832, 480), "704p (1280x704)": (1280, 704)}


def check_distilled(name: str, loras: Collection[str], advice: str) -> None:
    """Raise RequestError where a preset takes few steps because of a LoRA that is not among `loras`, by its names.

    `advice` says what to do about it.
    """
    preset = find_preset(name)
    if DISTILLING in dict(preset.loras) and DISTILLING not in loras:
        others = ", ".join(other for other, row in PRESETS.items() if not row.loras)
        raise RequestError(
            f"The preset '{name}' is made for the LoRA {DISTILLING} ({' or '.join(LORA_FILES[DISTILLING])}), without "
            f"which {preset.steps} steps without guidance make a poor picture, and it is not there: {advice}, or "
            f"choose a preset that needs none ({others})."
        )


def find_preset(name: str) -> Preset:
    """Return a preset by its name. Raises RequestError."""
    return _row("preset", PRESETS, name)


def size_of(name: str, orientation: str) -> tuple[int, int]:
    """Return (width, height) in pixels of a size and an orientation by their names. Raises RequestError."""
    if orientation not in ORIENTATIONS:
        raise RequestError(f"The orientation '{orientation}' is unknown: choose one of {', '.join(ORIENTATIONS)}.")
    width, height = _row("size", SIZES, name)
    return (width, height) if orientation == ORIENTATIONS[0] else (height, width)


def upstream_shift(width: int, height: int) -> float:
    """Return upstream's shift for a size in pixels: 3 around 512p, 5 from a shorter side of 608 pixels on.

    Upstream names the two values for two sizes; the border between them is ours.
    """
    return SHIFTS[min(width, height) >= HIGH]


def _row(what: str, rows: Mapping[str, Row], name: str) -> Row:
    if name not in rows:
        raise RequestError(f"The {what} '{name}' is unknown: choose one of {', '.join(rows)}.")
    return rows[name]
