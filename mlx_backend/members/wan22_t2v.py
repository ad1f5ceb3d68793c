"""Wan 2.2 T2V-A14B: a clip from words, by two experts."""

from dataclasses import replace

from .signature import Signature
from .wan.defaults import WAN
from .wan.model import Wan

# Source of the defaults: `wan/configs/` of Wan-Video/Wan2.2.
MEMBER = Wan(
    name="wan2.2-t2v-a14b",
    title="Wan2.2 T2V-A14B",
    defaults=replace(WAN, steps=40, cfg=4.0, shift=12.0, cfg_low=3.0),
    signature=Signature(image_branch=False, in_dim=16, out_dim=16),
    boundary=0.875,
    twin="wan2.1-t2v",
)
