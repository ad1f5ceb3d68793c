"""Holds what a user asks for to what the snapshot in use can do."""

from __future__ import annotations

from ..interface.events import Listener
from ..interface.limits import Limits
from ..interface.requests import SamplingSettings, Scene
from .store import Handle


def held_to_limits(
    dit: Handle, scene: Scene, settings: SamplingSettings, listener: Listener
) -> tuple[Scene, SamplingSettings]:
    """Return scene and settings as the DiT's snapshot allows them, and note what was changed.

    Raises WeightsError for limits that are none.
    """
    limits = Limits.of(dit.store.snapshot.settings)
    changed = limits.changed(scene) | limits.changed(settings)
    if changed:
        told = ", ".join(f"{name} {value:g}" for name, value in changed.items())
        listener.note(f"This small model knows nothing else, so the run has {told}, whatever is set.")
    return limits.held(scene), limits.held(settings)
