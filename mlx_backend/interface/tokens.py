"""How many tokens a pass has, and what stands around a segment's video, by numbers: what a run's costs depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .variants import MAX_TEXT_TOKENS


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """How many tokens each stream of a pass has; those `before` and `after` the video's attend with them.

    `text` is padded to its full length; `image` is what CLIP makes, 0 without that branch.
    """

    video: int
    before: int = 0
    after: int = 0
    text: int = MAX_TEXT_TOKENS
    image: int = 0

    @property
    def sequence(self) -> int:
        """Tokens that attend to each other."""
        return self.before + self.video + self.after


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a segment has beside its noisy video; as it stands, nothing.

    `before` and `after`: tokens. `stems`: the rows of each call of a stem that embeds them, by its name. `numbers`: of
    the latents and masks that they are made from. `encoded`: clips for the VAE, each (what, frames, width, height in
    pixels); `shared`: those that are the same for all segments. `pictures`: (what, how many clips) the process holds in
    pixels beside the result.
    """

    before: int = 0
    after: int = 0
    stems: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    numbers: int = 0
    shared: tuple[tuple[str, int, int, int], ...] = ()
    encoded: tuple[tuple[str, int, int, int], ...] = ()
    pictures: tuple[str, int] = ("no pictures", 0)
