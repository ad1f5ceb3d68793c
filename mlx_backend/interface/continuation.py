"""How a segment continues from the one before: what is handed on, how colours are held, which noise it starts from."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import RequestError

HISTORIES = ("pixels", "latents")
ANCHORS = ("off", "lab", "latent")
SEGMENT_SEEDS = ("running", "fixed", "advancing")


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """As it stands, upstream's way. What each choice does to the drift of colours stands in docs/long_video.md.

    `history`: the last frames are decoded and encoded again (pixels), or their latents are taken over as they are, and
    only the first of them, which stands for one frame instead of four, is encoded anew (latents). `anchor`: the colours
    of every segment are matched to those of the first one, in Lab by mean and deviation (lab, Reinhard et al. 2001), or
    so per channel of the latent (latent). `seed`: one generator runs on through all segments (running), each begins
    with the seed (fixed, as ComfyUI does it), or with the seed plus its number (advancing).
    """

    history: str = HISTORIES[0]
    anchor: str = ANCHORS[0]
    seed: str = SEGMENT_SEEDS[0]

    def __post_init__(self) -> None:
        """Raise RequestError for an unknown choice."""
        for what, value, allowed in (
            ("history", self.history, HISTORIES),
            ("colour anchor", self.anchor, ANCHORS),
            ("segment seed", self.seed, SEGMENT_SEEDS),
        ):
            if value not in allowed:
                raise RequestError(f"The {what} '{value}' is unknown: choose one of {', '.join(allowed)}.")
        if self.anchor == "lab" and self.history == "latents":
            raise RequestError(
                "The colour anchor 'lab' corrects pictures, so it cannot go with the history 'latents', which hands on "
                "latents that were never pictures: choose the anchor 'latent', or the history 'pixels'."
            )
