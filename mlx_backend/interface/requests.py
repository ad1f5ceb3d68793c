"""What a user asks for: settings checked on sight, pictures and videos as arrays that conditioning checks later."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .continuation import Continuation
from .draft import DRAFT_FRAMES
from .errors import RequestError
from .pictures import Pictures
from .segments import check_segments
from .variants import GRIDS, MODES, POSE_ROPES, SOLVERS

MAX_STEPS = 1000  # of noise that the model was trained on
MIN_SHIFT, MAX_SHIFT = 0.01, 100
STEP_CACHES = ("off", "easycache", "magcache")
MAX_THRESHOLD = 1.0
FEW_STEPS = 20  # so few lie so far apart that no step resembles the one before
ROUNDING = 1e-9  # of shares: 0.55 * 40 is 22.000000000000004, but means 22 steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Economy:
    """Passes of the model to leave out; as it stands, none. Nobody has tried any of it on real weights.

    `step_cache` at `threshold` reuses velocities where they change little (0 reuses none; published: 0.05 for
    easycache, 0.12 for magcache). `guidance_until`: share of the steps after which the difference that the prompt makes
    is no longer computed but kept (1: computed in every step).
    """

    step_cache: str = STEP_CACHES[0]
    threshold: float = 0.05
    guidance_until: float = 1.0

    def __post_init__(self) -> None:
        """Raise RequestError for values no run can have."""
        if self.step_cache not in STEP_CACHES:
            raise RequestError(
                f"The step cache '{self.step_cache}' is unknown: choose one of {', '.join(STEP_CACHES)}."
            )
        if not 0 <= self.threshold <= MAX_THRESHOLD:
            raise RequestError(
                f"The threshold of the step cache is {self.threshold}, but it must be 0 to {MAX_THRESHOLD:g} "
                "(published: 0.05 for easycache, 0.12 for magcache; 0 reuses nothing)."
            )
        if not 0 < self.guidance_until <= 1:
            raise RequestError(
                f"Guidance is computed until {self.guidance_until} of the steps, but it must be a share above 0 and "
                "up to 1 (1: in every step)."
            )

    def guided_steps(self, steps: int) -> int:
        """Return in how many of `steps` steps the pass without the prompt runs: the share, rounded up."""
        return math.ceil(self.guidance_until * steps - ROUNDING)


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSettings:
    """How the noise is turned into video. `cfg` of 1 or less leaves the unconditional pass out.

    `cfg_low`: the guidance of the low-noise expert where a model has two, None: `cfg` too.
    `grid`: where the sigmas of the steps lie; every solver runs on each. `pose_rope`: how the driving video's positions
    are rotated, one of POSE_ROPES.
    """

    steps: int
    cfg: float
    shift: float
    solver: str
    seed: int = 0
    segment_length: int
    segment_overlap: int
    economy: Economy = Economy()
    grid: str = GRIDS[0]
    continuation: Continuation = Continuation()
    pose_rope: str = POSE_ROPES[0]
    cfg_low: float | None = None

    def __post_init__(self) -> None:
        """Raise RequestError for values no run can have."""
        if not 1 <= self.steps <= MAX_STEPS:
            raise RequestError(f"The number of steps is {self.steps}, but it must be 1 to {MAX_STEPS} (usual: 40).")
        if self.solver not in SOLVERS:
            raise RequestError(f"The solver '{self.solver}' is unknown: choose one of {', '.join(SOLVERS)}.")
        if self.grid not in GRIDS:
            raise RequestError(f"The sigma grid '{self.grid}' is unknown: choose one of {', '.join(GRIDS)}.")
        if self.pose_rope not in POSE_ROPES:
            raise RequestError(f"The pose RoPE '{self.pose_rope}' is unknown: choose one of {', '.join(POSE_ROPES)}.")
        if not MIN_SHIFT <= self.shift <= MAX_SHIFT:
            raise RequestError(
                f"The shift is {self.shift}, but it must be {MIN_SHIFT} to {MAX_SHIFT} (usual: 1 to 12)."
            )
        for name, value in (("cfg", self.cfg), ("cfg of the low-noise expert", self.cfg_low)):
            if value is not None and not np.isfinite(value):
                raise RequestError(f"The {name} is {value}, but it must be a number (usual: 1 to 7).")
        check_segments(self.segment_length, self.segment_overlap)

    @property
    def is_guided(self) -> bool:
        """Whether there are passes without the prompt."""
        return max(self.cfgs) > 1

    @property
    def cfgs(self) -> tuple[float, float]:
        """The guidance of the first, or only, transformer and of the second."""
        return self.cfg, self.cfg if self.cfg_low is None else self.cfg_low

    @property
    def passes(self) -> int:
        """Passes of the model that a segment takes if none are left out."""
        return self.steps * (2 if self.is_guided else 1)


@dataclass(frozen=True, slots=True)
class LoraRequest:
    """A LoRA file at a strength; negative strengths take away what it was trained to add.

    `allow_unknown` accepts a file most of whose names fit nothing in the model.
    """

    path: Path
    strength: float = 1.0
    allow_unknown: bool = False

    def __post_init__(self) -> None:
        """Raise RequestError for a strength that is no number."""
        if not np.isfinite(self.strength):
            raise RequestError(f"The strength of {self.path.name} is {self.strength}, but it must be a number.")


def check_mode(mode: str) -> None:
    """Raise RequestError unless `mode` is one of MODES."""
    if mode not in MODES:
        raise RequestError(f"The mode '{mode}' is unknown: choose one of {', '.join(MODES)}.")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """The pictures of a run, each [F, H, W, 3] in 0..1, at any size; None where a member of the family has none.

    `image` and `last_image` [1, H, W, 3] are what a clip begins and ends with; `exact_size` keeps width and height
    where the published rule would fit them to the picture's shape.

    `references`: the primary one first, the others are extra views. Masks are coloured pictures [F, H, W, 3], or one
    person's mask [F, H, W]; `reference_masks` go with the references in order, the driving mask frame by frame.
    `start_frame` and `max_frames` cut the driving video and its mask (0: to the end). `follow_orientation` swaps width
    and height to the reference's orientation; `black_background` blacks out what is around the reference's person in
    replacement mode. `draft` makes a preview of the same run: its first frames at half its width and height. `fps` is
    the driving video's.
    """

    references: np.ndarray | None = None
    driving: Pictures | None = None
    reference_masks: np.ndarray | None = None
    driving_mask: Pictures | None = None
    mode: str = MODES[0]
    width: int
    height: int
    start_frame: int = 0
    max_frames: int = 0
    follow_orientation: bool = True
    black_background: bool = True
    draft: bool = False
    fps: float
    image: np.ndarray | None = None
    last_image: np.ndarray | None = None
    exact_size: bool = False

    def __post_init__(self) -> None:
        """Raise RequestError for settings that fit no picture."""
        check_mode(self.mode)
        if self.start_frame < 0 or self.max_frames < 0:
            raise RequestError(
                f"Start frame ({self.start_frame}) and maximum frames ({self.max_frames}) cannot be below 0: "
                "use 0 to begin at the first frame and to take all frames."
            )
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise RequestError(
                f"The driving video's frames per second are {self.fps}, but they must be a number above 0: connect the "
                "fps of the node that loads it."
            )

    @property
    def cut(self) -> slice:
        """The driving frames to use; in a draft the first of them."""
        if not self.draft:
            return self.full_cut
        return slice(self.start_frame, self.start_frame + min(self.max_frames or DRAFT_FRAMES, DRAFT_FRAMES))

    @property
    def full_cut(self) -> slice:
        """The driving frames that the run uses if it is no draft."""
        return slice(self.start_frame, self.start_frame + self.max_frames if self.max_frames else None)

    @property
    def is_replacement(self) -> bool:
        """Whether the driving video's scene is kept."""
        return self.mode == "replacement"
