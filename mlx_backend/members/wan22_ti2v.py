"""Wan 2.2 TI2V-5B: a clip from words and, where there is one, its first picture."""

from ..interface.latent_space import WAN22
from ..interface.segments import LONGEST
from ..interface.variants import Defaults
from .signature import Signature
from .wan.model import USABLE, Wan
from .wan.words import NEGATIVE

# Source of the defaults: `wan/configs/` of Wan-Video/Wan2.2.
MEMBER = Wan(
    name="wan2.2-ti2v-5b",
    title="Wan2.2 TI2V-5B",
    hub_repositories=(),
    components=("vae", "t5_encoder"),
    defaults=Defaults(
        width=1280,
        height=704,
        driving_fps=24.0,
        steps=50,
        cfg=5.0,
        shift=5.0,
        solver="unipc",
        segment_length=LONGEST,
        segment_overlap=5,
        frames=121,
        negative=NEGATIVE,
    ),
    signature=Signature(image_branch=False, in_dim=48, out_dim=48),
    space=WAN22,
    first=USABLE,
    in_latent=True,
)
