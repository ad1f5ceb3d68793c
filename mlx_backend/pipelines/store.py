"""Which networks are in memory: loaded when used, released when the next phase of a run needs the memory."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import cast

from ..models.clip_vision import ClipVision
from ..models.scail2 import Scail2DiT
from ..models.umt5 import UMT5Encoder
from ..models.vae21 import WanVAE21
from ..runtime.memory import return_memory
from ..spec.events import LOGGER, Listener, Progress
from ..weights.components import Network, load_component
from ..weights.snapshot import Snapshot

# What each phase of a run uses; entering it releases everything else.
PHASES = {
    "text": ("t5_encoder",),
    "clip": ("clip",),
    "sampling": ("vae", "dit"),
    "decoding": ("vae",),
}


class ModelStore:
    """The networks of one snapshot at one precision. Not for two threads at a time."""

    def __init__(self, snapshot: Snapshot, precision: str):
        self.snapshot = snapshot
        self.precision = precision
        self._loaded: dict[str, Network] = {}

    @property
    def loaded(self) -> tuple[str, ...]:
        """The components that are in memory."""
        return tuple(self._loaded)

    def enter(self, phase: str) -> None:
        """Release what the phase does not use."""
        surplus = [name for name in self._loaded if name not in PHASES[phase]]
        for name in surplus:
            LOGGER.info("Releasing %s before %s.", name, phase)
            del self._loaded[name]
        if surplus:
            gc.collect()
            return_memory()

    def release(self) -> None:
        """Release everything."""
        self._loaded.clear()
        gc.collect()
        return_memory()

    def get(self, component: str, listener: Listener) -> Network:
        """Return a network, loading it first if need be; a load that is cancelled or fails leaves nothing behind."""
        if component not in self._loaded:
            listener.progress(Progress(phase=f"loading {component}", done=0, total=1))
            self._loaded[component] = load_component(self.snapshot, component, self.precision, listener.check_cancelled)
            listener.progress(Progress(phase=f"loading {component}", done=1, total=1))
        return self._loaded[component]


@dataclass(frozen=True, slots=True)
class Handle:
    """A component that can be had from a store: what a node's socket carries, without any weights."""

    store: ModelStore
    component: str


@dataclass(frozen=True, slots=True)
class Models:
    """The four components of a run; they may come from different stores."""

    dit: Handle
    text_encoder: Handle
    clip: Handle
    vae: Handle

    @classmethod
    def of(cls, store: ModelStore) -> Models:
        """Take all four from one store."""
        return cls(*(Handle(store, name) for name in ("dit", "t5_encoder", "clip", "vae")))


def enter(phase: str, *handles: Handle) -> None:
    """Release what the phase does not use from the stores of all handles."""
    for handle in handles:
        handle.store.enter(phase)


def get_dit(handle: Handle, listener: Listener) -> Scail2DiT:
    """Return the handle's DiT."""
    return cast(Scail2DiT, handle.store.get("dit", listener))


def get_vae(handle: Handle, listener: Listener) -> WanVAE21:
    """Return the handle's VAE."""
    return cast(WanVAE21, handle.store.get("vae", listener))


def get_text_encoder(handle: Handle, listener: Listener) -> UMT5Encoder:
    """Return the handle's text encoder."""
    return cast(UMT5Encoder, handle.store.get("t5_encoder", listener))


def get_clip(handle: Handle, listener: Listener) -> ClipVision:
    """Return the handle's CLIP tower."""
    return cast(ClipVision, handle.store.get("clip", listener))
