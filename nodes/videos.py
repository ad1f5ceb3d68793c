"""VIDEOs of ours: pictures that are decoded when somebody asks for them, with their rate and their sound."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from comfy_api.input import VideoInput

from ..mlx_backend.interface.pictures import Pictures
from ..mlx_backend.media.footage import Footage
from ..mlx_backend.media.sound import read_sound
from ..mlx_backend.media.timing import DENOMINATOR


class LazyVideo(VideoInput):
    """A VIDEO of `pictures` at `fps`. Our nodes take the pictures; those of others get what they ask a VIDEO for.

    `audio` is an AUDIO; footage has the sound of its file.
    """

    def __init__(self, pictures: Pictures, fps: float, audio: dict[str, Any] | None = None) -> None:
        self.pictures, self.fps = pictures, fps
        self._audio = audio

    @property
    def audio(self) -> dict[str, Any] | None:
        """The sound that goes with the pictures, as an AUDIO; None where there is none."""
        if not isinstance(self.pictures, Footage):
            return self._audio
        sound = read_sound(self.pictures.source.path, self.pictures.begins, self.get_duration())
        if sound is None:
            return None
        return {"waveform": torch.from_numpy(sound.waveform)[None], "sample_rate": sound.rate}

    def get_components(self) -> Any:
        """Decode everything, for nodes that work on all frames."""
        from comfy_api.latest import Types

        images = torch.from_numpy(np.asarray(self.pictures))
        return Types.VideoComponents(images=images, audio=self.audio, frame_rate=self.get_frame_rate())

    def save_to(self, *where: Any, **how: Any) -> None:
        """Write a file as ComfyUI writes the VIDEO of these frames: every version of it has more to say how."""
        from comfy_api.latest import InputImpl

        InputImpl.VideoFromComponents(self.get_components()).save_to(*where, **how)

    def as_trimmed(
        self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = False
    ) -> LazyVideo | None:
        """Return the frames of so many seconds, None if there are none, or not enough of them for a strict duration."""
        start = round(max(0.0, start_time or 0.0) * self.fps)
        count = round(duration * self.fps) if duration else max(0, len(self.pictures) - start)
        part = self.pictures[start : start + count]
        if not len(part) or (strict_duration and len(part) < count):
            return None
        audio = self._audio
        if audio is not None:
            first, last = (round(frame / self.fps * audio["sample_rate"]) for frame in (start, start + len(part)))
            audio = audio | {"waveform": audio["waveform"][..., first:last]}
        return LazyVideo(part, self.fps, audio)

    def get_dimensions(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        return self.pictures.shape[2], self.pictures.shape[1]

    def get_frame_count(self) -> int:
        """Return how many frames there are."""
        return len(self.pictures)

    def get_frame_rate(self) -> Fraction:
        """Return the frames per second."""
        return Fraction(self.fps).limit_denominator(DENOMINATOR)

    def get_duration(self) -> float:
        """Return the seconds that it lasts."""
        return len(self.pictures) / self.fps
