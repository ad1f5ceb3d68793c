"""Wan 2.2 T2V-A14B: a clip from words, by two experts."""

from ..interface.segments import LONGEST
from ..interface.variants import Defaults
from .signature import Signature
from .wan.model import Wan
from .wan.words import NEGATIVE

# Source of the defaults: `wan/configs/` of Wan-Video/Wan2.2.
MEMBER = Wan(
    name="wan2.2-t2v-a14b",
    title="Wan2.2 T2V-A14B",
    hub_repositories=(),
    components=("vae", "t5_encoder"),
    defaults=Defaults(
        width=832,
        height=480,
        driving_fps=16.0,
        steps=40,
        cfg=4.0,
        shift=12.0,
        solver="unipc",
        segment_length=LONGEST,
        segment_overlap=5,
        frames=81,
        cfg_low=3.0,
        negative=NEGATIVE,
    ),
    signature=Signature(image_branch=False, in_dim=16, out_dim=16),
    boundary=0.875,
    twin="wan2.1-t2v",
)
