"""Previews by the means of the program around the nodes: its method, its tiny VAE; none where it wants none."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..mlx_backend.interface.events import LOGGER

FORMAT = "JPEG"


class Previews:
    """Turns latents into what ComfyUI's progress bar takes as a preview, by the previewer of ComfyUI's own samplers.

    `latent_preview.get_previewer` heeds the preview method ("none": no previewer), knows Wan 2.1's latent as RGB and a
    tiny VAE in models/vae_approx, and is where VideoHelperSuite puts its own in front, which sends all frames to the
    page itself and animates them. A preview that fails costs previews, never a run.
    """

    def __init__(self) -> None:
        self._previewer: Any = None
        self._frames = -1  # of the latents that the previewer is for, 0: any; VideoHelperSuite announces them once
        self._failed = False

    @property
    def wanted(self) -> bool:
        """Whether there is a previewer."""
        if self._frames < 0:
            self._open()
        return self._previewer is not None

    def picture(self, latent: np.ndarray) -> tuple[str, Any, int | None] | None:
        """Return (format, picture, largest side) of a latent [16, T, h, w]; None where there is none to pass on."""
        import torch

        if self._frames not in (0, latent.shape[1]):
            self._open()
        self._frames = latent.shape[1]
        if self._previewer is None:
            return None
        if type(self._previewer).__module__ == "latent_preview":  # ComfyUI's own show the first frame that they get
            latent = latent[:, latent.shape[1] // 2 :]  # which in later segments is a known one
        try:
            return self._previewer.decode_latent_to_preview_image(FORMAT, torch.from_numpy(latent)[None])
        except Exception as error:  # noqa: BLE001 - of whatever pack has put its previewer there
            self._fail(error)
            return None

    def _open(self) -> None:
        self._frames, self._previewer = 0, None
        program, formats = sys.modules.get("latent_preview"), sys.modules.get("comfy.latent_formats")
        if program is None or formats is None or self._failed:
            return
        import torch

        try:
            self._previewer = program.get_previewer(torch.device("cpu"), formats.Wan21())
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._previewer, self._failed = None, True
        LOGGER.warning("Previews are off for this run: %s.", error)
