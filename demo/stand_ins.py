"""Stand-ins for the few core nodes of the workflows, with the inputs and outputs that ComfyUI's own have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlx_backend.media.read import read_video
from mlx_backend.media.write import write_video

SAMPLE_PREFIX = "scail2_"  # the pack copies assets/NAME to ComfyUI's input folder as scail2_NAME


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """What a VIDEO socket carries: frames [F, H, W, 3] and their rate."""

    images: torch.Tensor
    fps: float


@dataclass(frozen=True, slots=True)
class CoreNodes:
    """The core nodes over a folder of inputs and one for outputs; they take a node's inputs and return its outputs."""

    inputs: Path
    outputs: Path

    def by_class(self) -> dict[str, Callable[[dict[str, Any]], tuple]]:
        """Return the nodes by ComfyUI's class name."""
        return {
            "LoadImage": self.load_image,
            "LoadImageMask": self.load_image_mask,
            "BatchImagesNode": batch_images,
            "SaveImage": self.save_image,
            "CreateVideo": self.create_video,
            "SaveVideo": self.save_video,
        }

    def load_image(self, inputs: dict[str, Any]) -> tuple:
        """Return (IMAGE [1, H, W, 3], MASK [1, H, W]); the mask is empty, as for pictures without alpha."""
        frames = read_video(self._input(inputs["image"])).frames
        return torch.from_numpy(frames), torch.zeros(frames.shape[:3])

    def load_image_mask(self, inputs: dict[str, Any]) -> tuple:
        """Return (MASK [1, H, W],) of one colour channel."""
        return image_to_mask({"image": self.load_image(inputs)[0], "channel": inputs["channel"]})

    def create_video(self, inputs: dict[str, Any]) -> tuple:
        """Return (VIDEO,)."""
        return (Video(inputs["images"], inputs["fps"]),)

    def save_video(self, inputs: dict[str, Any]) -> tuple:
        """Write PREFIX.mp4 and return its path."""
        path = (self.outputs / inputs["filename_prefix"]).with_suffix(".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, inputs["video"].images.numpy(), inputs["video"].fps)
        return (path,)

    def save_image(self, inputs: dict[str, Any]) -> tuple:
        """Write the first picture as PREFIX_00001_.png and return its path."""
        path = self.outputs / f"{inputs['filename_prefix']}_00001_.png"
        write_video(path, inputs["images"][:1].numpy(), fps=1)
        return (path,)

    def _input(self, name: str) -> Path:
        return self.inputs / name.removeprefix(SAMPLE_PREFIX)


def batch_images(inputs: dict[str, Any]) -> tuple:
    """Return (IMAGE,): the pictures, all of one size, in the order of their inputs' names."""
    names = sorted(inputs, key=lambda name: int(name.removeprefix("images.image")))
    return (torch.cat([inputs[name] for name in names]),)


def image_to_mask(inputs: dict[str, Any]) -> tuple:
    """Return (MASK [F, H, W],) of one colour channel."""
    return (inputs["image"][..., ("red", "green", "blue").index(inputs["channel"])],)
