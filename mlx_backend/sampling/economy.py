"""The velocity of a segment, with the passes left out that the settings allow, and how many passes that were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..interface.requests import SamplingSettings
from .easycache import EasyCache, Follow
from .guidance import Velocity, guided
from .magcache import CONDITIONAL, UNCONDITIONAL, MagCache
from .step_cache import CachedVelocity, SkipRule

Array = Any


@dataclass(slots=True)
class Passes:
    """Passes of the model that were `run`, of all segments so far."""

    run: int = 0

    def counted(self, velocity: Velocity) -> Velocity:
        """Return the velocity, each of whose calls counts as run."""

        def count(x: Array, t: float) -> Array:
            self.run += 1
            return velocity(x, t)

        return count


def segment_velocity(
    positive: Velocity,
    negative: Velocity | None,
    settings: SamplingSettings,
    passes: Passes,
    before: int = 0,
    count: int | None = None,
) -> Velocity:
    """Return the guided velocity of `count` steps (None: all) of one segment, after `before` that others run.

    It is to be called once per step, in order; `passes` counts along.

    `positive` and `negative` run the model with and without the prompt; `negative` is None where the settings are not
    guided. What the caches keep belongs to this segment.
    """
    economy, steps = settings.economy, settings.steps if count is None else count
    guided_steps = max(1, min(economy.guided_steps(settings.steps) - before, steps))
    branches = [passes.counted(branch) for branch in (positive, negative) if branch is not None]
    if economy.step_cache != "off":
        rules = _rules(economy.step_cache, steps, economy.threshold)
        branches = [CachedVelocity(branch, rule) for branch, rule in zip(branches, rules, strict=False)]
    with_prompt, *without = branches
    return guided(with_prompt, without[0] if without else None, settings.cfg, guided_steps)


def _rules(step_cache: str, steps: int, threshold: float) -> tuple[SkipRule, SkipRule]:
    if step_cache == "magcache":
        return MagCache(CONDITIONAL, steps, threshold), MagCache(UNCONDITIONAL, steps, threshold)
    leader = EasyCache(steps, threshold)
    return leader, Follow(leader)
