"""The tiny models of the Wan goldens, drawn tensor by tensor from their names: no weights are stored.

The rule is that of the goldens' own makers: numpy's RandomState of the CRC of "SEED/LABEL/NAME", scaled so that
activations stay of order one.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np

WAN = Path(__file__).parent / "data" / "wan"


def scale_and_offset(name: str, shape: list[int]) -> tuple[float, float]:
    """Return what a tensor's numbers are multiplied by, and what is added."""
    last = name.rsplit(".", 1)[-1]
    if last == "gamma" or (last == "weight" and len(shape) == 1):
        return 0.1, 1.0
    if last == "bias":
        return 0.1, 0.0
    if last in ("modulation", "emb_pos", "pos_embedding"):
        return 0.3, 0.0
    if name in ("token_embedding.weight", "cls_embedding") or name.endswith("pos_embedding.embedding.weight"):
        return 1.0, 0.0
    gain = 0.5 if name == "time_projection.1.weight" else 0.7 if ".attn.q." in name or ".attn.k." in name else 1.0
    return gain / math.sqrt(math.prod(shape[1:]) or 1), 0.0


def drawn(label: str, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Return float32 tensors of these names; `label` is a part ("vae2.1") or an expert ("t2v", "low")."""
    seed, made = recipe()["seed"], {}
    for name, shape in shapes.items():
        numbers = np.random.RandomState(zlib.crc32(f"{seed}/{label}/{name}".encode())).standard_normal(shape)
        scale, offset = scale_and_offset(name, shape)
        made[name] = (numbers * scale + offset).astype(np.float32)
    return made


def recipe() -> dict:
    """Return names, shapes and configurations of all models."""
    return json.loads((WAN / "weights.json").read_text(encoding="utf-8"))
