"""What a run of SCAIL-2 starts from."""

from ...interface.variants import Defaults

# Defaults of upstream's command line (`generate.py` of zai-org/SCAIL-2); the rate is that of training.
SCAIL2 = Defaults(
    width=896,
    height=512,
    driving_fps=16.0,
    steps=40,
    cfg=5.0,
    shift=3.0,
    solver="unipc",
    segment_length=81,
    segment_overlap=5,
)
