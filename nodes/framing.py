"""The framing of the reference: its person where the driving video's person stands."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..mlx_backend.members.scail2.framing import METHODS, Framing, fit_reference
from . import host, sockets
from .settings import checked, widget
from .tensors import rate_of, to_image, to_numpy, to_pictures


class Scail2FitReference(io.ComfyNode):
    """Reference and mask, moved so that the two people match in size and place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2FitReference",
            display_name="SCAIL-2 Fit Reference (MLX)",
            category=sockets.CATEGORY,
            description="Scales and places the reference so that its person has the size and place of the driving "
            "video's person, with its mask, and shows the result.",
            search_aliases=["scail", "align reference", "framing", "scale", "bounding box"],
            inputs=_inputs(),
            outputs=[
                io.Image.Output("reference_image", display_name="reference_image"),
                io.Image.Output("reference_mask", display_name="reference_mask"),
                io.Image.Output("preview", display_name="preview"),
                io.Float.Output("scale", display_name="scale"),
            ],
        )

    @classmethod
    def validate_inputs(cls, width: int | None, height: int | None) -> bool | str:
        """Refuse what constants decide before anything is queued."""
        return checked({"width": width, "height": height})

    @classmethod
    def execute(
        cls,
        reference_image: torch.Tensor,
        reference_mask: torch.Tensor,
        driving_mask: torch.Tensor | Any,
        mode: str,
        method: str,
        width: int,
        height: int,
        start_frame: int,
    ) -> io.NodeOutput:
        """Return the moved reference, its mask, a preview with the driving person's box, and the factor."""
        framing = Framing(mode=mode, method=method, width=width, height=height, start_frame=start_frame)
        listener = host.HostListener()
        moving = to_pictures(driving_mask, rate_of(driving_mask), listener)
        fitted = fit_reference(to_numpy(reference_image), to_numpy(reference_mask), moving, framing, listener)
        return io.NodeOutput(
            to_image(fitted.references), to_image(fitted.masks), to_image(fitted.preview), fitted.scale
        )


def _inputs() -> list[io.Input]:
    mask_types = [io.Image, io.Mask]
    return [
        io.Image.Input(
            "reference_image",
            tooltip="The character. In a batch the first picture is moved; extra views are only cropped to the size.",
        ),
        io.MultiType.Input(
            "reference_mask",
            types=mask_types,
            tooltip="Where the character is: coloured as for the sampler, or a MASK of one person.",
        ),
        io.MultiType.Input(
            "driving_mask",
            types=[*mask_types, io.Video],
            tooltip="Where the person is in the driving video: coloured as for the sampler, or a MASK of one person. "
            "The first frame that shows the person counts.",
        ),
        widget(
            "mode",
            tooltip="As in the sampler. animation: the reference's scene goes on where its picture ends. replacement: "
            "all around the character is black.",
        ),
        io.Combo.Input(
            "method",
            options=list(METHODS),
            default=METHODS[0],
            tooltip="fit: as large as goes into the driving person's box. match_height: as tall as the box, however "
            "wide. Both stand on the middle of its bottom edge. off: cropped as by the sampler.",
        ),
        *(widget(side, tooltip=f"The sampler's {side} in pixels, a multiple of 32.") for side in ("width", "height")),
        widget("start_frame", tooltip="As in the sampler: the driving mask counts from this frame."),
    ]
