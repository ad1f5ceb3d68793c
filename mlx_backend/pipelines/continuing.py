"""What a segment has from the ones before: its clean first latents, and the first segment's colours."""

from __future__ import annotations

from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from ..interface.continuation import Continuation
from ..interface.events import Listener
from ..interface.geometry import LatentSize, latent_frames
from ..interface.segments import SegmentPlan
from ..interface.tiling import Tiling
from ..media.colour import Colours, ColourSum, match_colours
from ..models.conditioning import Known
from ..models.vae import WanVAE
from .decode import last_frames
from .reports import ShareReport

FLAT = 1e-3  # of a normalised latent's channel, whose deviation is about 1: less is not stretched


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Continuing:
    """Continues segments of a plan from finished ones, `made`: normalised latents [16, T, h, w] in the plan's order."""

    vae: WanVAE
    how: Continuation
    plan: SegmentPlan
    tiling: Tiling | None
    listener: Listener
    _first: list[Colours] = field(default_factory=list)  # of the first segment's pictures, once they were seen

    def history(self, number: int, made: list[np.ndarray], size: LatentSize) -> Known:
        """Return the last frames of segment `number` - 1 as the clean start of segment `number`, of latent `size`."""
        segment, before = self.plan.segments[number], made[number - 1]
        frames = self._last_frames(number, made, segment.history)
        keeps_latents = self.how.history == "latents"
        if keeps_latents:  # of the causal VAE's latents the first stands for one frame, each other one for four
            frames = frames[:1]
        tell = self._report("encoding the frames to continue from", len(frames), number)
        known = self.vae.encode(mx.array(frames) * 2 - 1, self.listener.check_cancelled, self.tiling, tell)
        others = latent_frames(segment.history) - 1
        if keeps_latents and others:
            known = mx.concatenate([known, mx.array(before[:, -others:])], axis=1)
        clean = mx.pad(known, ((0, 0), (0, size.frames - known.shape[1]), (0, 0), (0, 0)))
        mask = mx.arange(size.frames)[None, :, None, None] < known.shape[1]
        mx.eval(clean, mask)
        return Known(mask, clean)

    def anchored(self, number: int, latent: np.ndarray, made: list[np.ndarray]) -> np.ndarray:
        """Return a segment's latent with the first segment's mean and deviation per channel, if that was chosen.

        The frames that it continues from stay as they are, and do not count.
        """
        if self.how.anchor != "latent" or number == 0:
            return latent
        known = latent_frames(self.plan.segments[number].history)
        fresh, first = latent[:, known:], made[0][:, 1:] if made[0].shape[1] > 1 else made[0]
        over = (1, 2, 3)
        own, aim = fresh.std(axis=over, keepdims=True), first.std(axis=over, keepdims=True)
        gain = np.where(own > FLAT, aim / np.maximum(own, FLAT), 1)
        moved = (fresh - fresh.mean(axis=over, keepdims=True)) * gain + first.mean(axis=over, keepdims=True)
        return np.concatenate([latent[:, :known], moved.astype(np.float32)], axis=1)

    def _last_frames(self, number: int, made: list[np.ndarray], count: int) -> np.ndarray:
        """Decode what segment `number` continues from: [count, H, W, 3] in 0..1, in the colours that will be shown."""
        if self.how.anchor != "lab":
            return self._decoded(number, number - 1, made, count)[0]
        if not self._first and number > 1:  # a run that goes on from kept segments has not seen the first one
            self._first.append(self._decoded(number, 0, made, 1)[1])
        frames, colours = self._decoded(number, number - 1, made, count)
        if not self._first:
            self._first.append(colours)
        elif number > 1:
            before = self.plan.segments[number - 1]
            known = max(0, before.history - (before.frames - count))  # they have the colours already
            match_colours(frames[known:], colours, self._first[0])
        return frames

    def _decoded(
        self, number: int, index: int, made: list[np.ndarray], count: int
    ) -> tuple[np.ndarray, Colours | None]:
        """Decode segment `index` for segment `number`: its last frames, and the colours of all that it added."""
        total, segment, latent = ColourSum(), self.plan.segments[index], made[index]

        def see(first: int, pictures: np.ndarray) -> None:
            total.add(pictures[max(0, segment.history - first) :])

        frames = last_frames(
            self.vae,
            latent,
            count,
            self.listener.check_cancelled,
            self.tiling,
            self._report("decoding the frames to continue from", latent.shape[1], number),
            see if self.how.anchor == "lab" else None,
        )
        return frames, total.colours() if self.how.anchor == "lab" else None

    def _report(self, phase: str, units: int, number: int) -> ShareReport:
        return ShareReport.begun(self.listener, phase, units, number, len(self.plan.segments))
