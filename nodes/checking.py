"""One look at everything before an hour of sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..mlx_backend.pipelines.input_check import check_inputs
from . import host, sockets
from .masks import shown
from .sampling import Scail2Sampler
from .settings import checked, widget, widgets
from .tensors import to_image, to_numpy, to_pictures

PICTURES = ("reference_image", "driving_video", "reference_mask", "driving_mask", "mode", "width", "height")
FRAMES = ("segment_length", "segment_overlap", "start_frame", "max_frames", "follow_orientation", "black_background")
PASSES = ("steps", "cfg")


class Scail2InputCheck(io.ComfyNode):
    """A sheet of the inputs, the plan of the run, and what is odd about them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2InputCheck",
            display_name="SCAIL-2 Input Check (MLX)",
            category=sockets.CATEGORY,
            description="Looks at what the sampler will get, without sampling: a sheet of pictures and masks as the "
            "model sees them, the plan (frames, segments, passes, memory), and warnings with what to do.",
            search_aliases=["scail", "check", "preview", "validate", "mask preview", "plan", "dry run"],
            is_output_node=True,
            inputs=_inputs(),
            outputs=[
                io.Image.Output("sheet", display_name="sheet"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, width: int | None, height: int | None, segment_length: int | None, segment_overlap: int | None
    ) -> bool | str:
        """Refuse what constants decide before anything is queued."""
        segments = {"segment_length": segment_length, "segment_overlap": segment_overlap}
        return checked({"width": width, "height": height} | segments)

    @classmethod
    def execute(
        cls,
        reference_image: torch.Tensor,
        driving_video: torch.Tensor,
        reference_mask: torch.Tensor | None = None,
        driving_mask: torch.Tensor | None = None,
        model=None,
        vae=None,
        **settings: Any,
    ) -> io.NodeOutput:
        """Return the sheet and the report, and show both under the node."""
        listener, fps = host.HostListener(), settings.get("driving_fps")
        pictures = {
            "references": to_numpy(reference_image),
            "driving": to_pictures(driving_video, fps, listener),
            "reference_masks": to_numpy(reference_mask),
            "driving_mask": to_pictures(driving_mask, fps, listener),
        }
        found = check_inputs(pictures, settings, model, vae, listener)
        report = str(found)
        host.HostListener().note(report)  # a new one has no line below it that says where the run is
        sheet = to_image(found.sheet[None].astype(np.float32) / 255)
        picture = shown(sheet, cls)
        return io.NodeOutput(sheet, report, ui={"text": [report]} | ({} if picture is None else picture.as_dict()))


def _inputs() -> list[io.Input]:
    """Return the sampler's own inputs, as far as the pictures, the size, the segments and the passes go."""
    return [
        *sockets.inputs_of(Scail2Sampler, *PICTURES),
        widget(
            "driving_fps",
            step=0.001,
            optional=False,
            advanced=False,
            tooltip="Frames per second of the driving video: connect the fps of Get Video Components, or of SCAIL-2 "
            "Resample FPS. The model was trained on 16.",
        ),
        *widgets(*FRAMES, *PASSES),
        sockets.Model.Input(
            "model",
            optional=True,
            tooltip="From Load SCAIL-2, with its LoRAs: memory is predicted for these files. Nothing is loaded.",
        ),
        sockets.Vae.Input("vae", optional=True, tooltip="From Load SCAIL-2: memory is predicted for this file."),
    ]
