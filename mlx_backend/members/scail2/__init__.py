"""SCAIL-2 (zai-org): a character of a picture performs the motion of a video."""

from ..member import Defaults, Member

# Defaults of upstream's command line (`generate.py` of zai-org/SCAIL-2); fps is that of training.
MEMBER = Member(
    name="scail-2-14b",
    title="SCAIL-2",
    hub_repositories=("SceneWorks/scail2-mlx",),
    components=("vae", "t5_encoder", "clip"),
    defaults=Defaults(
        width=896,
        height=512,
        fps=16.0,
        steps=40,
        cfg=5.0,
        shift=3.0,
        solver="unipc",
        segment_length=81,
        segment_overlap=5,
    ),
)
