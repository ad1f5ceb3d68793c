"""One table between the official checkpoints' tensors and the turnkey snapshot's: renames and layouts, both ways.

The networks (models/) carry the official names, and the snapshot's layouts. So the official files need only the
layouts, a snapshot only the renames. Every row is a bijection; tests/test_keys.py proves it at full size.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rename:
    """Within `component`, the part `official` of a name reads `snapshot` in a snapshot."""

    component: str
    official: str
    snapshot: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Within `component`, a `.weight` of `len(axes)` axes is the official one transposed by `axes`."""

    component: str
    axes: tuple[int, ...]


RENAMES = (
    # the official Sequential(Linear, GELU) of UMT5's gate is one Linear in the snapshot
    Rename("t5_encoder", ".ffn.gate.0.", ".ffn.gate_proj."),
)

LAYOUTS = (
    Layout("vae", (0, 2, 3, 4, 1)),  # 3D convolutions: [out, in, t, h, w] -> [out, t, h, w, in]
    Layout("vae", (0, 2, 3, 1)),  # 2D convolutions: [out, in, h, w] -> [out, h, w, in]
)


def official_name(component: str, snapshot_name: str) -> str:
    """Return the official name of a snapshot's tensor."""
    for row in RENAMES:
        if row.component == component:
            snapshot_name = snapshot_name.replace(row.snapshot, row.official)
    return snapshot_name


def snapshot_name(component: str, official_name: str) -> str:
    """Return the name that an official tensor has in a snapshot."""
    for row in RENAMES:
        if row.component == component:
            official_name = official_name.replace(row.official, row.snapshot)
    return official_name


def snapshot_axes(component: str, name: str, ndim: int) -> tuple[int, ...]:
    """Return the transposition that takes an official tensor to the snapshot's layout; identity for most."""
    for row in LAYOUTS:
        if row.component == component and name.endswith(".weight") and len(row.axes) == ndim:
            return row.axes
    return tuple(range(ndim))
