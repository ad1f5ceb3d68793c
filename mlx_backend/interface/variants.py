"""What can be chosen, by name, and what a run starts from: data only."""

from __future__ import annotations

from dataclasses import dataclass

SOLVERS = ("unipc", "dpm++", "euler")
GRIDS = ("upstream", "simple")  # of sigmas: upstream's, or that of ComfyUI's scheduler of this name
MODES = ("animation", "replacement")
POSE_ROPES = ("upstream", "midpoint")  # the driving video's positions: the mean of their rotations, or their middle
RESIDENCIES = ("auto", "resident", "streamed")  # of the DiT's blocks: in memory, or read when they are due
PROCESSES = ("auto", "own", "shared")  # where the networks run; auto: in their own where Metal computes
MAX_TEXT_TOKENS = 512
END_TOKEN = 1  # </s> of every UMT5 tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a run of a member starts from: those of its publisher's program; `driving_fps` is that of its training.

    `frames`: how many there are without a driving video, 0: those of a segment. `cfg_low`: the guidance of the second
    expert where the member has two. `negative`: what a clip should not show where nothing is said. `shift_480p`: the
    shift of 832 x 480 pixels where it is another.
    """

    width: int
    height: int
    driving_fps: float
    steps: int
    cfg: float
    shift: float
    solver: str
    segment_length: int
    segment_overlap: int
    frames: int = 0
    cfg_low: float | None = None
    negative: str = ""
    shift_480p: float | None = None
