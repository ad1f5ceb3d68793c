"""A video from ComfyUI's input folder, of which only what is needed becomes pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..mlx_backend.media.decode import VideoFile
from ..mlx_backend.media.footage import Footage
from ..mlx_backend.media.resize import MASK, PHOTO
from . import host, sockets
from .settings import DEFAULTS
from .tensors import to_image
from .videos import LazyVideo

METHODS = {"pictures": PHOTO, "mask": MASK}
IMAGES, FIRST, MASKS, _, AUDIO, _ = range(6)  # the outputs
MUCH = 4e9  # bytes of an IMAGE batch from which a clip had better stay a VIDEO


class Scail2LoadVideo(io.ComfyNode):
    """A file, and what of it is wanted, in; the clip in every form that sockets have out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See io.ComfyNode."""
        return io.Schema(
            node_id="Scail2LoadVideo",
            display_name="SCAIL-2 Load Video (MLX)",
            category=sockets.CATEGORY,
            description="Loads a video: its range, its frame rate, its size. Its video output is decoded by the nodes "
            "of this pack when they need it, a segment at a time, so a long or large clip takes no memory; images and "
            "mask are decoded only where they are connected.",
            search_aliases=["scail", "load video", "import video", "driving video", "video file", "first frame"],
            inputs=_inputs(),
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.Image.Output("first_frame", display_name="first_frame"),
                io.Mask.Output("mask", display_name="mask"),
                io.Float.Output("fps", display_name="fps"),
                io.Audio.Output("audio", display_name="audio"),
                io.Video.Output("video", display_name="video"),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        """Accept any file that is there, also one that was uploaded after the list was made."""
        known = host.input_file(file).is_file()
        return known or f"There is no video '{file}' in the input folder: choose one from the list, or upload it."

    @classmethod
    def fingerprint_inputs(cls, file: str, **_rest: Any) -> tuple:
        """Change when the file does, or when outputs are connected that were not and so have not been made."""
        path, linked = host.input_file(file), host.linked_outputs()
        made = "all" if linked is None else sorted(linked & {IMAGES, FIRST, MASKS, AUDIO})
        return (file, *host.file_state(path), made)

    @classmethod
    def execute(
        cls,
        file: str,
        start_frame: int,
        max_frames: int,
        target_fps: float,
        width: int,
        height: int,
        content: str = "pictures",
    ) -> io.NodeOutput:
        """Return the outputs that are connected, None for the others, and the VIDEO, not decoded yet."""
        listener = host.HostListener()
        footage = Footage.of(VideoFile.of(host.input_file(file)))
        rate = target_fps or footage.fps
        clip = footage if rate is None else footage.at_rate(rate, listener)
        clip = clip.part(start_frame, max_frames).covering(width, height, METHODS[content])
        video = LazyVideo(clip, clip.fps or DEFAULTS.driving_fps)
        frames, high, wide, _ = clip.shape
        rate = f"{video.fps:.6g} fps ({video.get_duration():.2f} s)"
        listener.note(f"{frames} frame{'s' * (frames != 1)} of {wide}x{high} at {rate}.")
        linked = host.linked_outputs()

        def made(output: int) -> bool:
            return linked is None or output in linked

        if made(IMAGES):
            _tell_bytes(clip, listener)
        return io.NodeOutput(
            to_image(np.asarray(clip)) if made(IMAGES) else None,
            to_image(clip[:1][[0]]) if made(FIRST) else None,
            _brightest(clip) if made(MASKS) else None,
            float(video.fps),
            video.audio if made(AUDIO) else None,
            video,
        )


def _brightest(clip: Footage) -> torch.Tensor:
    """Return a MASK [F, H, W]: white on black, and any identity's colour on black, is 1 on 0."""
    mask = np.empty(clip.shape[:3], np.float32)
    for target, picture in zip(mask, clip, strict=True):
        np.max(picture, axis=-1, out=target)
    return torch.from_numpy(mask)


def _tell_bytes(clip: Footage, listener: host.HostListener) -> None:
    frames, height, width, _ = clip.shape
    size = 4 * int(np.prod(clip.shape))
    if size > MUCH:
        listener.warn(
            f"The images are {frames} of {width}x{height}, {size / 1e9:.1f} GB: set width and height to what the run "
            "needs, limit max_frames, or connect the video output instead, which takes no memory."
        )


def _inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "file",
            options=host.input_videos(),
            upload=io.UploadType.video,
            tooltip="A video in ComfyUI's input folder. It is turned upright as the camera has noted.",
        ),
        io.Int.Input(
            "start_frame",
            default=0,
            min=0,
            max=1_000_000,
            tooltip="The first frame to use, counted at the target frame rate.",
        ),
        io.Int.Input(
            "max_frames",
            default=0,
            min=0,
            max=1_000_000,
            tooltip="Most frames to use, counted at the target frame rate; 0 takes all to the end.",
        ),
        io.Float.Input(
            "target_fps",
            default=DEFAULTS.driving_fps,
            min=0.0,
            max=1000.0,
            step=0.001,
            tooltip="Frames per second to come out, picked by their time stamps and never blended: 16, which the model "
            "was trained on; 0 keeps the file's own.",
        ),
        io.Int.Input(
            "width",
            default=0,
            min=0,
            max=16384,
            tooltip="Pixels across. The pictures are resized to fill width and height and cropped around the middle, "
            "as the sampler does; 0: as the height makes it, or as in the file.",
        ),
        io.Int.Input(
            "height",
            default=0,
            min=0,
            max=16384,
            tooltip="Pixels down; 0: as the width makes it, or as in the file.",
        ),
        io.Combo.Input(
            "content",
            options=list(METHODS),
            default="pictures",
            optional=True,
            tooltip="How frames are resized. pictures: bicubic, smooth. mask: by nearest neighbours, so that the "
            "colours of a mask stay pure.",
            advanced=True,
        ),
    ]
