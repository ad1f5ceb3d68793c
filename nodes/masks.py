"""Coloured identity masks, and looking at them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..mlx_backend.interface.errors import RequestError
from ..mlx_backend.interface.variants import MODES
from ..mlx_backend.media.contact_sheet import contact_sheet
from ..mlx_backend.members.scail2.masks import driving_background, reference_background
from ..mlx_backend.members.scail2.people import ORDERS, ColouredMask, Painter, backdrop, tell
from . import host, sockets
from .tensors import rate_of, to_image, to_pictures

Track = io.Custom("SAM3_TRACK_DATA")  # ComfyUI's own: the masks of several people, packed
Masks = dict[str, Any] | torch.Tensor | Any  # SAM3_TRACK_DATA, MASK, IMAGE or VIDEO
TRACK_KEYS = ("packed_masks", "orig_size")


class Scail2ColoredMask(io.ComfyNode):
    """Masks of people on both sides, painted in the identities' colours with the mode's backgrounds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2ColoredMask",
            display_name="SCAIL-2 Colored Mask (MLX)",
            category=sockets.CATEGORY,
            description="Paints tracks of SAM3, MASKs or already coloured pictures in the colours and on the "
            "backgrounds that SCAIL-2 was trained with, and shows them. Tracks give the same pixels as ComfyUI's own "
            "node.",
            search_aliases=["scail", "colored mask", "coloured mask", "sam3", "identity mask", "person mask"],
            is_output_node=True,
            inputs=_inputs(),
            outputs=[
                io.Image.Output("driving_mask", display_name="driving_mask"),
                io.Image.Output("reference_mask", display_name="reference_mask"),
                io.Image.Output("preview", display_name="preview"),
            ],
        )

    @classmethod
    def execute(
        cls,
        driving: Masks,
        mode: str,
        order: str,
        people: str,
        people_per_mask: int,
        reference: Masks | None = None,
    ) -> io.NodeOutput:
        """Return both masks and a sheet of frames of them, which is shown under the node too."""
        listener = host.HostListener()
        painter = Painter.of(order, people, listener)
        replacement = mode == "replacement"
        background = driving_background(replacement=replacement)
        driving_mask = _painted(painter, "driving", driving, people_per_mask, background)
        background = reference_background(replacement=replacement)
        reference_mask = None
        if reference is not None:
            reference_mask = _painted(painter, "reference", reference, people_per_mask, background)
        tell(driving_mask, reference_mask, listener)
        if reference_mask is None:
            reference_mask = backdrop(driving_mask, background)
        sides = {"driving mask": driving_mask, "reference mask": reference_mask}
        sheet = contact_sheet([(f"{name}, {mask}", mask.clip) for name, mask in sides.items()])
        preview = to_image(sheet[None].astype(np.float32) / 255)
        return io.NodeOutput(
            to_image(driving_mask.clip), to_image(reference_mask.clip), preview, ui=shown(preview, cls)
        )


def _inputs() -> list[io.Input]:
    kinds = [Track, io.Mask, io.Image]
    return [
        io.MultiType.Input(
            "driving",
            types=[*kinds, io.Video],
            tooltip="Where the people are in the driving video: track_data of Run SAM3 Video Track, a MASK per frame, "
            "or frames or a VIDEO that are coloured already (blue, red, green, magenta, cyan, yellow).",
        ),
        io.MultiType.Input(
            "reference",
            types=kinds,
            optional=True,
            tooltip="Where the people are in the reference picture: a track of it, a MASK or a coloured picture. "
            "Several pictures: one mask for each. Without it, reference_mask is background only.",
        ),
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MODES[0],
            tooltip="As in SCAIL-2 Sampler. animation: driving mask on black, reference mask on white. replacement: "
            "driving mask on white, reference mask on black.",
        ),
        io.Combo.Input(
            "order",
            options=list(ORDERS),
            default="left_to_right",
            tooltip="Who gets the first colour, on both sides. Who appears in an earlier frame comes first; within a "
            "frame the leftmost or the one with the largest area. none: the order of the track or MASK. Coloured "
            "pictures keep their colours.",
        ),
        io.String.Input(
            "people",
            default="",
            tooltip="Who is painted, as numbers from 0 in that order, such as 0,2. Empty: everybody. The first number "
            "becomes blue, the second red and so on. In coloured pictures 0 is blue, 1 red, 2 green, 3 magenta, "
            "4 cyan, 5 yellow.",
        ),
        io.Int.Input(
            "people_per_mask",
            default=1,
            min=1,
            max=64,
            tooltip="How many people a MASK batch holds: all frames of the first, then all of the second, and so on, "
            "as Batch Masks joins them. Tracks and coloured pictures do not need it.",
        ),
    ]


def _painted(
    painter: Painter, side: str, masks: Masks, people: int, background: tuple[float, float, float]
) -> ColouredMask:
    if isinstance(masks, dict):
        missing = [key for key in TRACK_KEYS if key not in masks]
        if missing:
            raise RequestError(
                f"The {side} track lacks {' and '.join(missing)}: connect the track_data of Run SAM3 Video Track."
            )
        packed, size = masks["packed_masks"], tuple(int(length) for length in masks["orig_size"])
        packed = None if packed is None else packed.detach().cpu().numpy()
        return painter.track(f"{side} track", packed, int(masks.get("n_frames", 1)), size, background)
    array = to_pictures(masks, rate_of(masks), painter.listener)
    if array.ndim == 4:
        return painter.pictures(f"{side} mask", array, background)
    return painter.batch(f"{side} mask", array, people, background)


def shown(picture: torch.Tensor, cls: type[io.ComfyNode]) -> Any:
    """Return what makes ComfyUI show a picture under the node; None outside ComfyUI, which alone has folders for it."""
    return ui.PreviewImage(picture, cls=cls) if "folder_paths" in sys.modules else None
