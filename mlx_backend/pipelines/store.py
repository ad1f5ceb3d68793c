"""Which networks are in memory: loaded when used, released when the next phase of a run needs the memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from ..interface.errors import RequestError, WeightsError
from ..interface.events import LOGGER, Listener, Progress
from ..interface.requests import LoraRequest
from ..interface.variants import RESIDENCIES
from ..members import member_named
from ..members.member import Member
from ..models.clip_vision import ClipVision
from ..models.umt5 import UMT5Encoder
from ..models.vae import WanVAE
from ..models.wan import WanModel
from ..runtime.memory import return_memory
from ..weights.checkpoints.components import Fitted, Network, PartSizes, fitting, load_component, part_sizes
from ..weights.checkpoints.snapshot import Snapshot
from ..weights.lora.apply import LoraState, apply_loras, read_plan
from ..weights.lora.values import LoraValues

# What each phase of a run uses; entering it releases everything else.
PHASES = {
    "text": ("t5_encoder",),
    "clip": ("clip",),
    "sampling": ("vae", "dit"),
    "decoding": ("vae",),
}


class Elsewhere(Protocol):
    """Another process, which holds the networks of its stores."""

    @property
    def held_bytes(self) -> int:
        """What it holds in memory."""

    def call(self, function: Callable[..., Any], *arguments: Any, listener: Listener) -> Any:
        """Return what a public function of the backend makes of these arguments there, as if it were called here."""

    def loaded(self, store: ModelStore) -> tuple[str, ...]:
        """Return the components of a store that are in memory there."""

    def release(self) -> None:
        """Give back the memory of all of them."""


class ModelStore:
    """The networks of one snapshot at one precision. Not for two threads at a time.

    `residency` of the DiT: one of RESIDENCIES; "auto" leaves it to each run. The text encoder is always streamed: a
    run passes through it once. `cache` is a folder for encoded prompts and pictures, None: nothing is kept. `memory` is
    how many bytes a run may take, 0: what suits the machine. `elsewhere`: where the networks are loaded and used; None:
    here.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        precision: str,
        residency: str = "auto",
        cache: Path | None = None,
        memory: int = 0,
        elsewhere: Elsewhere | None = None,
    ):
        if residency not in RESIDENCIES:
            raise RequestError(f"The residency '{residency}' is unknown: choose one of {', '.join(RESIDENCIES)}.")
        self.snapshot = snapshot
        self.precision = precision
        self.residency = residency
        self.cache = cache
        self.memory = memory
        self.elsewhere = elsewhere
        self._fitted: dict[str, Fitted] = {}  # still to be loaded
        self._loaded: dict[str, Network] = {}
        self._member = ""
        self._sizes: dict[str, PartSizes] = {}  # of what is loaded
        self._dit_residency = ""
        self._loras = LoraState()  # of the DiT that is in memory
        self._low_noise: ModelStore | None = None

    @property
    def low_noise(self) -> ModelStore | None:
        """The store of the second expert, None where the model is one."""
        if self.snapshot.low_noise is not None and self._low_noise is None:
            others = self.precision, self.residency, self.cache, self.memory, self.elsewhere
            self._low_noise = ModelStore(self.snapshot.second_expert, *others)
        return self._low_noise

    @property
    def loaded(self) -> tuple[str, ...]:
        """The components that are in memory."""
        return (*self._loaded, *(() if self.elsewhere is None else self.elsewhere.loaded(self)))

    def __getstate__(self) -> dict[str, object]:
        """A store that is sent to another process takes its files and settings there, and no weights."""
        emptied = {"_loaded": {}, "_dit_residency": "", "_loras": LoraState(), "_fitted": {}, "_sizes": {}}
        return self.__dict__ | emptied | {"elsewhere": None}

    def fitted(self, component: str) -> Fitted:
        """Return a component's file and its network, made once: until it is loaded, or the file is another one."""
        kept = self._fitted.get(component)
        if kept is None or not kept.is_current:
            kept = self._fitted[component] = fitting(self.snapshot, component, self.precision)
            self._member = kept.source.member or self._member
        return kept

    @property
    def member(self) -> Member:
        """The member of the family that the DiT is. Raises WeightsError."""
        if self.snapshot.member:
            return member_named(self.snapshot.member)
        if "dit" not in self._loaded:
            self.fitted("dit")
        return member_named(self._member)

    def outline(self) -> WanModel:
        """Return the DiT for its names and shapes: the one in memory, else one without weights. Raises WeightsError."""
        return cast(WanModel, self._loaded["dit"] if "dit" in self._loaded else self.fitted("dit").network)

    def sizes(self, component: str) -> PartSizes:
        """Return what planning needs to know of a component. Raises WeightsError."""
        return self._sizes[component] if component in self._sizes else part_sizes(self.fitted(component))

    def enter(self, phase: str) -> None:
        """Release what the phase does not use."""
        surplus = [name for name in self._loaded if name not in PHASES[phase]]
        for name in surplus:
            LOGGER.info("Releasing %s before %s.", name, phase)
            self._drop(name)
        if surplus:
            collect()

    def release(self) -> None:
        """Release everything."""
        for name in tuple(self._loaded):
            self._drop(name)
        if self.elsewhere is not None:
            self.elsewhere.release()
        self._fitted.clear()
        collect()

    def let_go(self, component: str) -> None:
        """Release one component."""
        if component in self._loaded:
            LOGGER.info("Releasing %s.", component)
            self._drop(component)
            collect()

    def get(self, component: str, listener: Listener) -> Network:
        """Return a network, loading it first if need be; a load that is cancelled or fails leaves nothing behind."""
        return self._get(component, "streamed" if component == "t5_encoder" else "resident", listener)

    def get_dit(self, loras: tuple[LoraRequest, ...], listener: Listener, residency: str = "resident") -> WanModel:
        """Return the DiT, "resident" or "streamed", with these LoRAs on it, and no others.

        Changing LoRAs does not load it again; changing the residency does.
        """
        if "dit" in self._loaded and self._dit_residency != residency:
            self._drop("dit")
            collect()
        dit = cast(WanModel, self._get("dit", residency, listener))
        apply_loras(dit, loras, self._loras)
        return dit

    def _get(self, component: str, residency: str, listener: Listener) -> Network:
        if component not in self._loaded:
            listener.progress(Progress(phase=f"loading {component}", done=0, total=1))
            fitted = self.fitted(component)
            del self._fitted[component]  # a network is filled once
            sizes = part_sizes(fitted)
            self._loaded[component] = load_component(fitted, listener.check_cancelled, residency)
            self._sizes[component] = sizes
            if component == "dit":
                self._dit_residency = residency
            listener.progress(Progress(phase=f"loading {component}", done=1, total=1))
        return self._loaded[component]

    def _drop(self, component: str) -> None:
        del self._loaded[component], self._sizes[component]
        if component == "dit":
            self._loras = LoraState()


def collect() -> None:
    """Free what nothing refers to any more, and give the memory back."""
    gc.collect()
    return_memory()


@dataclass(frozen=True, slots=True)
class Handle:
    """A component that can be had from a store: what a node's socket carries, without any weights.

    `loras` are put on a DiT when it is used, `low_loras` on the second of two experts; other components have none.
    """

    store: ModelStore
    component: str
    loras: tuple[LoraRequest, ...] = ()
    low_loras: tuple[LoraRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class Models:
    """The components of a run, which may come from different stores; None where another program takes the part."""

    dit: Handle
    text_encoder: Handle | None = None
    clip: Handle | None = None
    vae: Handle | None = None
    low_noise: Handle | None = None

    @classmethod
    def of(
        cls, store: ModelStore, loras: tuple[LoraRequest, ...] = (), low_loras: tuple[LoraRequest, ...] = ()
    ) -> Models:
        """Take all from one store, the DiT with these LoRAs, and its second expert, if there is one, with others."""
        others = (Handle(store, name) for name in ("t5_encoder", "clip", "vae"))
        return cls.with_dit(Handle(store, "dit", loras, low_loras), *others)

    @classmethod
    def with_dit(
        cls,
        dit: Handle,
        text_encoder: Handle | None = None,
        clip: Handle | None = None,
        vae: Handle | None = None,
    ) -> Models:
        """Take a DiT, with its second expert if it has one, and these other parts."""
        second = None if dit.store.low_noise is None else Handle(dit.store.low_noise, "dit", dit.low_loras)
        return cls(dit, text_encoder, clip, vae, second)

    @property
    def needed(self) -> Models:
        """Those that the member of the family takes. Raises WeightsError."""
        return self if "clip" in self.dit.store.member.components else replace(self, clip=None)

    @property
    def experts(self) -> tuple[Handle, ...]:
        """The transformers that the steps of a run share, that for strong noise first."""
        return (self.dit,) if self.low_noise is None else (self.dit, self.low_noise)

    @property
    def parts(self) -> tuple[Handle, ...]:
        """All that are there, in the order of the fields."""
        every = (self.dit, self.text_encoder, self.clip, self.vae, self.low_noise)
        return tuple(part for part in every if part is not None)


def check_models(models: Models) -> None:
    """Compare the headers of the files that are not in memory yet with the networks. Raises WeightsError."""
    for handle in (*models.parts[1:], models.dit):
        if handle.component not in handle.store.loaded:
            handle.store.fitted(handle.component)
    for expert in models.experts:
        check_loras(expert)
    if models.vae is not None:
        _check_vae(models.vae, models.dit.store.member)


def check_loras(dit: Handle) -> None:
    """Tell from the headers whether the LoRAs of a DiT are made for it; nothing is loaded. Raises WeightsError."""
    for lora in dit.loras:
        read_plan(LoraValues(lora.path), dit.store.outline(), allow_unknown=lora.allow_unknown)


def _check_vae(vae: Handle, member: Member) -> None:
    """Raise WeightsError for the VAE of another member."""
    channels = vae.store.sizes("vae").config.z_dim
    if channels != member.space.channels:
        raise WeightsError(
            f"{vae.store.snapshot.path('vae')} is a VAE of {channels} channels, but {member.title} works on latents of "
            f"{member.space.channels}: choose the VAE that is published with it."
        )


def enter(phase: str, *handles: Handle) -> None:
    """Release what the phase does not use from the stores of all handles."""
    for handle in handles:
        handle.store.enter(phase)


def get_dit(handle: Handle, listener: Listener, residency: str = "auto") -> WanModel:
    """Return the handle's DiT, with its LoRAs; `residency` is what the run wants where the store leaves it open."""
    wanted = handle.store.residency if handle.store.residency != "auto" else residency
    return handle.store.get_dit(handle.loras, listener, "resident" if wanted == "auto" else wanted)


def get_vae(handle: Handle, listener: Listener) -> WanVAE:
    """Return the handle's VAE."""
    return cast(WanVAE, handle.store.get("vae", listener))


def get_text_encoder(handle: Handle, listener: Listener) -> UMT5Encoder:
    """Return the handle's text encoder."""
    return cast(UMT5Encoder, handle.store.get("t5_encoder", listener))


def get_clip(handle: Handle, listener: Listener) -> ClipVision:
    """Return the handle's CLIP tower."""
    return cast(ClipVision, handle.store.get("clip", listener))
