"""Wan 2.2 TI2V-5B: a clip from words and, where there is one, its first picture."""

from dataclasses import replace

from ..interface.latent_space import WAN22
from .signature import Signature
from .wan.defaults import WAN
from .wan.model import USABLE, Wan

# Source of the defaults: `wan/configs/` of Wan-Video/Wan2.2.
MEMBER = Wan(
    name="wan2.2-ti2v-5b",
    title="Wan2.2 TI2V-5B",
    defaults=replace(WAN, width=1280, height=704, driving_fps=24.0, frames=121),
    signature=Signature(image_branch=False, in_dim=48, out_dim=48),
    space=WAN22,
    first=USABLE,
    in_latent=True,
)
