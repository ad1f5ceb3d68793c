"""Every setting of a run, a row each: dataclass, widget, option of the command line and help are made from it.

A request is a mapping of names to values; what it leaves out is the row's default, or the member's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .continuation import ANCHORS, HISTORIES, SEGMENT_SEEDS, Continuation
from .geometry import SIZE_STEP
from .requests import MAX_STEPS, MAX_THRESHOLD, STEP_CACHES, Economy, SamplingSettings, Scene
from .segments import LONGEST
from .variants import GRIDS, MODES, POSE_ROPES, SOLVERS, Defaults

UNPROVED = "Off by default: nobody has validated it on real weights."
MANY = 1 << 20  # frames
SMALL = {832, 480}  # pixels of what the publishers call 480P


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting. `fills` is its field: "scene.width", "cfg", "economy.threshold"; "" where it is about the session.

    A `default` of None is the member's of that name. `choices` are the values of one that has no range. `help` is what
    the command line says of it, with `metavar` where its value is no choice.
    """

    name: str
    fills: str
    default: Any = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    tooltip: str = ""
    optional: bool = False
    advanced: bool = False
    help: str = ""
    metavar: str = ""

    def value(self, defaults: Defaults) -> Any:
        """Return its default for a member."""
        return getattr(defaults, self.name) if self.default is None else self.default


def _rows(*rows: Setting) -> dict[str, Setting]:
    return {row.name: row for row in rows}


# In the order of the sampler's widgets, which never changes: saved workflows keep their values by position. Rows that
# are optional came later.
SETTINGS = _rows(
    Setting(
        name="mode",
        fills="scene.mode",
        default=MODES[0],
        choices=MODES,
        tooltip="animation: the reference's scene is kept. replacement: the driving video's scene is kept.",
        help="whose scene is kept: the reference's or the video's",
    ),
    *(
        Setting(
            name=side,
            fills=f"scene.{side}",
            low=SIZE_STEP,
            high=4096,
            step=SIZE_STEP,
            tooltip="Pixels, a multiple of 32.",
            help="pixels, a multiple of 32 (default {default})",
        )
        for side in ("width", "height")
    ),
    Setting(
        name="steps",
        fills="steps",
        low=1,
        high=MAX_STEPS,
        tooltip="Solver steps per segment.",
        help="solver steps per segment (default {default}, or the preset's)",
    ),
    Setting(
        name="cfg",
        fills="cfg",
        low=0.0,
        high=30.0,
        step=0.1,
        tooltip="How strongly the prompt is followed. 1 or less leaves out the second pass: twice as fast.",
        help="guidance; 1 halves the work (default {default}, or the preset's)",
    ),
    Setting(
        name="shift",
        fills="shift",
        low=0.1,
        high=100.0,
        step=0.1,
        tooltip="Moves the steps towards strong noise. Upstream uses 3 for 512p and 5 for 704p.",
        help="sigma shift (default {default}, or the preset's)",
    ),
    Setting(
        name="solver",
        fills="solver",
        choices=SOLVERS,
        tooltip="unipc is upstream's; euler is the plainest.",
        help="(default {default}, or the preset's)",
    ),
    Setting(
        name="seed",
        fills="seed",
        default=0,
        low=0,
        high=0xFFFFFFFFFFFFFFFF,
        tooltip="The noise is that of ComfyUI for the same seed and size.",
        help="(default {default})",
        metavar="S",
    ),
    Setting(
        name="segment_length",
        fills="segment_length",
        low=5,
        high=LONGEST,
        step=4,
        tooltip="Frames made at once (4k+1). The model was trained on 81; longer videos are made in segments.",
        advanced=True,
        help="(default {default})",
        metavar="N",
    ),
    Setting(
        name="segment_overlap",
        fills="segment_overlap",
        low=1,
        high=81,
        step=4,
        tooltip="Frames of the segment before that the next one continues from (4k+1). Trained on 5.",
        advanced=True,
        help="(default {default})",
        metavar="N",
    ),
    Setting(
        name="start_frame",
        fills="scene.start_frame",
        default=0,
        low=0,
        high=MANY,
        tooltip="First frame of the driving video to use.",
        help="first driving frame to use",
        metavar="N",
    ),
    Setting(
        name="max_frames",
        fills="scene.max_frames",
        default=0,
        low=0,
        high=MANY,
        tooltip="Most frames to use; 0 takes all.",
        help="most frames to use (0: all)",
        metavar="N",
    ),
    Setting(
        name="follow_orientation",
        fills="scene.follow_orientation",
        default=True,
        tooltip="Swap width and height when the reference is upright and the size is not, or the reverse.",
        advanced=True,
        help="do not swap width and height to the reference's orientation",
    ),
    Setting(
        name="black_background",
        fills="scene.black_background",
        default=True,
        tooltip="In replacement mode, black out what is around the character in the reference (needs its mask).",
        advanced=True,
        help="do not black out the reference's background in replacement",
    ),
    Setting(
        name="step_cache",
        fills="economy.step_cache",
        default=STEP_CACHES[0],
        choices=STEP_CACHES,
        tooltip=f"Reuse the model's answer in steps where it changes little. {UNPROVED} Useless below about 20 "
        "steps. easycache decides while it runs; magcache follows a fixed schedule.",
        optional=True,
        advanced=True,
        help="reuse velocities; not validated on real weights, see docs/fewer_passes.md (default {default})",
    ),
    Setting(
        name="cache_threshold",
        fills="economy.threshold",
        default=Economy().threshold,
        low=0.0,
        high=MAX_THRESHOLD,
        step=0.01,
        tooltip="How much error the step cache may gather: more is faster and worse. Published for Wan 2.1: 0.05 "
        "for easycache, 0.12 for magcache; 0 reuses nothing.",
        optional=True,
        advanced=True,
        help="error that it may gather (default {default})",
        metavar="F",
    ),
    Setting(
        name="guidance_until",
        fills="economy.guidance_until",
        default=Economy().guidance_until,
        low=0.05,
        high=1.0,
        step=0.05,
        tooltip="Share of the steps after which the difference that the prompt makes is kept instead of computed: "
        f"at 0.5 a quarter of the passes is saved. {UNPROVED} 1 computes it in every step; no effect at cfg 1.",
        optional=True,
        advanced=True,
        help="share of the steps with both passes (1: all)",
        metavar="F",
    ),
    Setting(
        name="draft",
        fills="scene.draft",
        default=False,
        tooltip="A quick preview with the same seed and framing: half the width and height, at most the first 33 "
        "frames. The full run will resemble it, not equal it.",
        optional=True,
        help="a preview: half the size, the first 33 frames, same seed and framing",
    ),
    Setting(
        name="grid",
        fills="grid",
        default=GRIDS[0],
        choices=GRIDS,
        tooltip="At which noise levels the steps lie. upstream: as the original. simple: as ComfyUI's scheduler of "
        "that name, so that euler at shift 8 steps where ComfyUI's template for SCAIL-2 does.",
        optional=True,
        advanced=True,
        help="where the sigmas lie; simple: as ComfyUI's scheduler (default {default}, or the preset's)",
    ),
    Setting(
        name="history",
        fills="continuation.history",
        default=HISTORIES[0],
        choices=HISTORIES,
        tooltip="What a later segment continues from. pixels: the last frames, decoded and encoded again, as "
        "upstream does it. latents: their latents as they are, so that the VAE's losses do not add up.",
        optional=True,
        advanced=True,
        help="what a segment continues from, see docs/long_video.md (default {default})",
    ),
    Setting(
        name="colour_anchor",
        fills="continuation.anchor",
        default=ANCHORS[0],
        choices=ANCHORS,
        tooltip="Holds the colours of every segment at those of the first. lab: the pictures' mean and contrast in "
        "Lab (with history pixels, and decoded by Wan VAE Decode). latent: each channel of the latent. Not for "
        "videos whose light or place changes.",
        optional=True,
        advanced=True,
        help="how later segments keep the first one's colours (default {default})",
    ),
    Setting(
        name="segment_seed",
        fills="continuation.seed",
        default=SEGMENT_SEEDS[0],
        choices=SEGMENT_SEEDS,
        tooltip="The noise of later segments. running: one generator goes on, as upstream. fixed: the same noise "
        "in each, as ComfyUI. advancing: the seed plus the segment's number.",
        optional=True,
        advanced=True,
        help="the noise of later segments: one generator, the same seed, the seed plus their number (default "
        "{default})",
    ),
    Setting(
        name="resume",
        fills="",
        default=True,
        tooltip="Finished segments are kept in output/scail2_resume, so that a cancelled or crashed run goes on "
        "where it stopped when it is queued again with the same inputs. Turn it off to make everything anew.",
        optional=True,
        advanced=True,
    ),
    Setting(
        name="driving_fps",
        fills="scene.fps",
        low=0.01,
        high=1000.0,
        step=0.01,
        tooltip="Frames per second of the driving video, only to warn when it is not the trained 16: connect the "
        "fps of Get Video Components, or of SCAIL-2 Resample FPS.",
        optional=True,
        advanced=True,
    ),
    Setting(
        name="pose_rope",
        fills="pose_rope",
        default=POSE_ROPES[0],
        choices=POSE_ROPES,
        tooltip="How the driving video's positions are rotated. upstream: the mean over each 2x2 patches, as the "
        "original. midpoint: by their middle, as ComfyUI's own sampling. Results differ a little.",
        optional=True,
        advanced=True,
        help="rotation of the driving video's positions; midpoint: as ComfyUI (default {default})",
    ),
)


# What only members without a driving video have, offered beside those above and never a widget of SCAIL-2's sampler.
FAMILY = _rows(
    Setting(
        name="cfg_low",
        fills="cfg_low",
        low=0.0,
        high=30.0,
        step=0.1,
        tooltip="The same for the low-noise expert of a model that has two.",
        optional=True,
        help="guidance of the low-noise expert, where a model has two (default: the model's, or --cfg where that is "
        "given)",
        metavar="F",
    ),
    Setting(
        name="exact_size",
        fills="scene.exact_size",
        default=False,
        tooltip="Off: width x height is the area, and the picture's shape decides how it is divided, as upstream. On: "
        "the clip has exactly this size, and the picture is fitted to it.",
        optional=True,
        help="make exactly width x height of a picture of another shape, instead of its shape at that area",
    ),
)
ROWS = SETTINGS | FAMILY


def complete(given: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Return the same settings with a value each; None counts as not given."""
    return {name: ROWS[name].value(defaults) if value is None else value for name, value in given.items()}


def sampling_of(given: Mapping[str, Any], defaults: Defaults) -> SamplingSettings:
    """Return how a run is to be sampled. Raises RequestError for values that no run can have."""
    values = _values(given, defaults)
    size = {values["scene"][side] for side in ("width", "height")}
    if given.get("shift") is None and size == SMALL and defaults.shift_480p is not None:
        values[""]["shift"] = defaults.shift_480p
    if given.get("cfg") is not None and given.get("cfg_low") is None:
        values[""]["cfg_low"] = None  # it follows what was asked for
    parts = {"economy": Economy(**values.pop("economy")), "continuation": Continuation(**values.pop("continuation"))}
    return SamplingSettings(**values.pop(""), **parts)


def scene_of(given: Mapping[str, Any], pictures: Mapping[str, Any], defaults: Defaults) -> Scene:
    """Return a run's pictures and how they are used. Raises RequestError for settings that fit none."""
    return Scene(**pictures, **_values(given, defaults)["scene"])


def _values(given: Mapping[str, Any], defaults: Defaults) -> dict[str, dict[str, Any]]:
    """Return the values of all rows by the parts that they fill. Raises TypeError for a name that no row has."""
    unknown = given.keys() - ROWS.keys()
    if unknown:
        raise TypeError(f"There is no setting named {' or '.join(sorted(unknown))}: see {__name__}.ROWS.")
    made: dict[str, dict[str, Any]] = {}
    for name, value in complete({name: given.get(name) for name in ROWS}, defaults).items():
        part, _, field = ROWS[name].fills.rpartition(".")
        if field:
            made.setdefault(part, {})[field] = value
    return made
