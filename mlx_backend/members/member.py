"""What the rest of the backend asks of a model of the family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..interface.sizes import WanConfig
from .signature import Signature

if TYPE_CHECKING:
    from ..models.wan import WanModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a run of a member starts from: those of its publisher's program; `fps` is that of its training."""

    width: int
    height: int
    fps: float
    steps: int
    cfg: float
    shift: float
    solver: str
    segment_length: int
    segment_overlap: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A row of the table. `title` is what sentences call it; `components` what a run needs beside the "dit".

    `sizes` are those that only its configuration has, each with a tensor and the axis that tells it.
    """

    name: str
    title: str
    hub_repositories: tuple[str, ...]
    components: tuple[str, ...]
    defaults: Defaults
    signature: Signature
    sizes: tuple[tuple[str, str, int], ...] = ()

    def config(self, sizes: Mapping[str, Any]) -> WanConfig:
        """Return its configuration from the sizes of every Wan model and its own `sizes`."""
        return WanConfig(**sizes)

    def network(self, config: WanConfig, compute_dtype: Any) -> WanModel:
        """Return its diffusion transformer without weights, for products in an MLX dtype (None: the weights')."""
        from ..models.wan import WanModel

        return WanModel(config, compute_dtype)
