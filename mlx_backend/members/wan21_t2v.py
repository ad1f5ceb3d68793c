"""Wan 2.1 T2V, 1.3B and 14B: a clip from words."""

from .signature import Signature
from .wan.defaults import WAN
from .wan.model import Wan

# Source of the defaults: `wan/configs/` and `generate.py` of Wan-Video/Wan2.1.
MEMBER = Wan(
    name="wan2.1-t2v",
    title="Wan2.1 T2V",
    defaults=WAN,
    signature=Signature(image_branch=False, in_dim=16, out_dim=16),
)
