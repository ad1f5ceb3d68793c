"""A run as a value, and what surrounds it while it is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..interface.events import Listener
from ..interface.geometry import LatentSize
from ..interface.requests import SamplingSettings
from ..interface.segments import SegmentPlan
from ..interface.tokens import Tokens
from ..models.conditioning import Known
from ..planning.planner import RunPlan
from .denoising import MakeConditions
from .store import Handle, Models
from .text import Prompts


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Session:
    """What surrounds a run: who listens and may stop it, and the folder in which finished segments are kept, if any."""

    listener: Listener
    kept: Path | None = None


class Material(Protocol):
    """What a run's segments are made from: checked, nothing encoded or loaded; plain, so that it can be sent."""

    @property
    def sizes(self) -> tuple[LatentSize, ...]:
        """The latent of each segment."""

    @property
    def tokens(self) -> Sequence[Tokens]:
        """The tokens of a pass over each segment."""

    @property
    def plan(self) -> SegmentPlan | None:
        """How the segments join to one clip; None where each is a clip of its own."""

    @property
    def stages(self) -> tuple[str, ...]:
        """What is made in the run beside its passes, of planning/workload.py's STAGES, decoding left out."""

    @property
    def described(self) -> str:
        """What is no array, as part of a kept segment's name."""

    @property
    def prompts(self) -> Prompts | None:
        """Its words, where they are known."""

    def parts_of(self, models: Models) -> tuple[Handle, ...]:
        """Return the components that it takes beside the DiT."""

    def ready(self, run: Run, session: Session) -> Material:
        """Return it with what must be made before the DiT has the memory: text and CLIP features."""

    def noise(self, settings: SamplingSettings) -> Iterator[np.ndarray]:
        """Yield what each segment starts from."""

    def arrays(self) -> Iterable[np.ndarray | None]:
        """Return what all segments are made from."""

    def arrays_of(self, number: int) -> tuple[str, Iterable[np.ndarray | None]]:
        """Return what only segment `number` is made from, in words and arrays."""

    def opened(self, run: Run, session: Session) -> OpenedMaterial:
        """Return it with the VAE in place, if it takes one."""


class OpenedMaterial(Protocol):
    """Makes what conditions each segment, in order."""

    def segment(self, number: int, made: list[np.ndarray]) -> tuple[Known | None, MakeConditions]:
        """Return the frames of a segment that are known, and what embeds its conditions for a transformer.

        `made` are the segments before.
        """

    def finished(self, number: int, latent: np.ndarray, made: list[np.ndarray]) -> np.ndarray:
        """Return a denoised latent as it is to be kept."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Run:
    """What is to be made, from what, and how: plain values, that another process or machine can be sent.

    `models`: the files, LoRAs and precision of every part, without a weight. `facts`: what the report says of the
    request: "scene" with its "mode", "pictures".
    """

    models: Models
    material: Material
    settings: SamplingSettings
    how: RunPlan
    facts: Mapping[str, Any]

    @property
    def parts(self) -> tuple[Handle, ...]:
        """Every component that it takes, the experts of the DiT first."""
        return (*self.models.experts, *self.material.parts_of(self.models))
