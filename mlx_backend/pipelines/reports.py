"""What a run tells its listener from within: shares of a phase, passes and steps of all segments, estimates."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..interface.events import Listener, Progress
from ..sampling.loop import Estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareReport:
    """Takes the share that is done of a part of a phase: `units` of the phase's `total`, after `before` of them."""

    listener: Listener
    phase: str
    total: int
    units: int
    before: int = 0
    segment: int = 0
    segments: int = 0

    @classmethod
    def begun(
        cls, listener: Listener, phase: str, units: int, number: int | None = None, segments: int = 0
    ) -> ShareReport:
        """Tell that a phase of so many units begins, in segment `number` from 0 if in any; return what takes shares."""
        report = cls(
            listener=listener,
            phase=phase,
            total=units,
            units=units,
            segment=0 if number is None else number + 1,
            segments=0 if number is None else segments,
        )
        report(0.0)
        return report

    def __call__(self, share: float) -> None:
        """Tell that this share (0..1) of the part is done."""
        self.listener.progress(
            Progress(
                phase=self.phase,
                done=self.before + round(share * self.units),
                total=self.total,
                segment=self.segment,
                segments=self.segments,
            )
        )


@dataclass(kw_only=True, slots=True)
class StepReport:
    """Counts the passes of all segments for the progress bar, and shows what each step predicts.

    A step counts `per_step` passes, also where some were left out. `segment` counts from 0.
    """

    listener: Listener
    steps: int
    per_step: int
    segment: int
    segments: int
    _finished: int = 0  # steps of this segment
    _within: int = 0  # passes of the step that runs

    def begin(self) -> None:
        """Tell that the first step begins."""
        self._finished = self._within = 0
        self._tell()

    def passed(self) -> None:
        """Count a pass; the last one of a step is told with the step."""
        self._within += 1
        if self._within < self.per_step:
            self._tell()

    def __call__(self, i: int, estimate: Estimate) -> None:
        """Tell that step i is finished, and show its estimate to who wants it; else it is not computed."""
        self._finished, self._within = i + 1, 0
        self._tell()
        if self.listener.wants_preview:
            self.listener.preview(np.array(estimate().astype(mx.float32)))

    def _tell(self) -> None:
        before = self.segment * self.steps + self._finished
        self.listener.progress(
            Progress(
                phase="sampling",
                done=before * self.per_step + self._within,
                total=self.segments * self.steps * self.per_step,
                segment=self.segment + 1,
                segments=self.segments,
                step=self._finished,
                steps=self.steps,
            )
        )
