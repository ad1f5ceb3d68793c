"""The turnkey snapshot's names and layouts against the official checkpoints', both ways, out of key_tables.py.

The networks (models/) carry the official names, and the snapshot's layouts. Every row of the tables is a bijection;
tests/test_keys.py proves it at full size.
"""

from __future__ import annotations

from functools import lru_cache

from . import key_tables as tables
from .key_maps import origins

# The turnkey DiT has the official names.
TURNKEY = {"dit": "official", "vae": "turnkey", "t5_encoder": "turnkey", "clip": "turnkey"}


def official_name(component: str, name: str) -> str:
    """Return the official name of a snapshot's tensor; a name that no table knows stays as it is."""
    return _officials(component).get(name, name)


def snapshot_name(component: str, name: str) -> str:
    """Return the name that an official tensor has in a snapshot."""
    return _names(component).get(name, name)


def snapshot_axes(component: str, name: str, ndim: int) -> tuple[int, ...]:
    """Return the transposition that takes an official tensor to the snapshot's layout; identity for most."""
    if component in tables.CHANNELS_LAST_NETWORKS and ndim >= 4 and name.endswith(".weight"):
        return (0, *range(2, ndim), 1)
    return tuple(range(ndim))


@lru_cache(maxsize=len(TURNKEY))
def _names(component: str) -> dict[str, str]:
    wanted = component, TURNKEY[component]
    layout = next(row for row in tables.LAYOUTS if (row.component, row.name) == wanted)
    return {official: choices[0].sources[0] for official, choices in origins(layout).items()}


@lru_cache(maxsize=len(TURNKEY))
def _officials(component: str) -> dict[str, str]:
    return {name: official for official, name in _names(component).items()}
