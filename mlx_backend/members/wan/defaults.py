"""What runs of the family start from, where a row of the table says nothing else."""

from ...interface.segments import LONGEST
from ...interface.variants import Defaults
from .words import NEGATIVE

# Source: `wan/configs/` and `generate.py` of Wan-Video/Wan2.1, whose T2V this is.
WAN = Defaults(
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
)
