"""Wan 2.1 T2V, 1.3B and 14B: a clip from words."""

from ..interface.segments import LONGEST
from ..interface.variants import Defaults
from .signature import Signature
from .wan.model import Wan
from .wan.words import NEGATIVE

# Source of the defaults: `wan/configs/` and `generate.py` of Wan-Video/Wan2.1.
MEMBER = Wan(
    name="wan2.1-t2v",
    title="Wan2.1 T2V",
    hub_repositories=(),
    components=("vae", "t5_encoder"),
    defaults=Defaults(
        width=832,
        height=480,
        driving_fps=16.0,
        steps=50,
        cfg=5.0,
        shift=5.0,
        solver="unipc",
        segment_length=LONGEST,
        segment_overlap=5,
        frames=81,
        negative=NEGATIVE,
    ),
    signature=Signature(image_branch=False, in_dim=16, out_dim=16),
)
