"""What a file of tensors is, and how each tensor of the network is made from it: from names and shapes alone.

The names are those of key_tables.py. Nothing here reads data: a `Recipe` tells what to do with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from ...interface.errors import WeightsError, listed
from ...interface.sizes import PATCH
from ...members import members, titles
from ...members.member import Member
from ...members.signature import Facts
from ...members.unsupported import SIZES, UNSUPPORTED, Unsupported
from ..formats.safetensors_file import TensorInfo
from . import key_tables as tables
from .key_tables import Layout

LEAVES = (".weight", ".bias", ".scales", ".biases")
WHOLE_DTYPES = ("F64", "F32", "F16", "BF16")  # one element is one number, so shapes are those of the matrices
LAYERS = range(64)
VAE_LAYERS = range(16)

Tensors = Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one tensor of a network is made from a file.

    The `sources`, names as in the file, are stacked along axis 0; of that, `part` of `parts` equal parts along axis 0
    is taken, given the shape `reshape` and then transposed by `axes` (None: left as it is).
    """

    sources: tuple[str, ...]
    part: int = 0
    parts: int = 1
    axes: tuple[int, ...] | None = None
    reshape: tuple[int, ...] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the tensor is the file's as it stands."""
        return len(self.sources) == 1 and self.parts == 1 and self.axes is None and self.reshape is None

    def shape(self, infos: Tensors) -> tuple[int, ...]:
        """Return the shape of what `apply` will make. Raises WeightsError where the file's shapes do not allow it."""
        missing = [f"'{name}'" for name in self.sources if name not in infos]
        if missing:
            raise WeightsError(f"The file lacks {listed(missing)}, which the network needs: download it again.")
        shapes = [infos[name].shape for name in self.sources]
        shape = shapes[0]
        if len(shapes) > 1:
            if not shape or any(other[1:] != shape[1:] for other in shapes):
                raise self._misfit(infos, "be stacked, because their rows differ")
            shape = (sum(other[0] for other in shapes), *shape[1:])
        if self.parts > 1:
            if not shape or shape[0] % self.parts:
                raise self._misfit(infos, f"be split into {self.parts} equal parts")
            shape = (shape[0] // self.parts, *shape[1:])
        if self.reshape is not None:
            if math.prod(self.reshape) != math.prod(shape):
                raise self._misfit(infos, f"take the shape {list(self.reshape)}")
            shape = self.reshape
        axes = tuple(range(len(shape))) if self.axes is None else self.axes
        if sorted(axes) != list(range(len(shape))):
            raise self._misfit(infos, f"have the {len(axes)} axes that are expected")
        return tuple(shape[axis] for axis in axes)

    def apply(self, arrays: list[Any], concatenate: Callable[[list[Any]], Any] | None = None) -> Any:
        """Make the tensor from the arrays of `sources`, NumPy's or MLX's, whose shapes have passed `shape`.

        `concatenate` stacks arrays along axis 0; without it the one that belongs to the arrays is taken.
        """
        if len(arrays) != len(self.sources):
            raise ValueError(f"{len(arrays)} arrays for {len(self.sources)} sources")
        array = arrays[0] if len(arrays) == 1 else (concatenate or _concatenate_of(arrays[0]))(arrays)
        if self.parts > 1:
            rows = array.shape[0] // self.parts
            array = array[self.part * rows : (self.part + 1) * rows]
        if self.reshape is not None:
            array = array.reshape(self.reshape)
        return array if self.axes is None else array.transpose(*self.axes)

    def _misfit(self, infos: Tensors, what: str) -> WeightsError:
        found = ", ".join(f"'{name}' of shape {list(infos[name].shape)}" for name in self.sources)
        return WeightsError(
            f"{found} cannot {what}: the file is damaged or of a model that this program does not know, "
            "download it again or choose another."
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What a file is: a component and a layout of it, or, with neither, what else; `description` reads "a ...".

    `prefix` stands before the names of that layout; `member` is the name of the model whose diffusion transformer it
    is. What lacks less than it has may be a damaged file: `whole` is what it would be then.
    """

    component: str | None
    layout: str | None
    description: str
    prefix: str = ""
    member: str | None = None
    whole: Found | None = None


def kind_of(component: str) -> str:
    """Return what sentences call a component."""
    return tables.KINDS.get(component) or f"a {titles()} diffusion transformer"


def identify(tensors: Tensors) -> Found:
    """Tell what a file holds, from its tensors' names and shapes.

    The component is None for a LoRA, for other models, for a part of a model that is split over several files, and for
    what this program does not know; the description then names it. Raises WeightsError where the shapes of a file that
    has the right names cannot be.
    """
    found, known, foreign = _best(tensors)
    if sum(re.search(tables.LORA, name) is not None for name in tensors) > known:
        return Found(None, None, f"a LoRA ({len(tensors)} tensors), not a whole model: use the LoRA loader")
    made = recipes(found, tensors) if found.component else {}
    row = _row(found, made, tensors)
    if foreign >= known and (row is None or not row.signature.marks):
        first = f", the first is '{min(tensors)}'" if tensors else ""
        return Found(None, None, f"a file that this program does not know ({len(tensors)} tensors{first})")
    if isinstance(row, Unsupported):
        return Found(None, None, _refused(row, found, made, tensors))
    called = _called(found, row, made)
    layout = _layout(found).called
    whole = replace(found, description=f"{called} {layout}", member=row.name if row else None)
    text = _rank(made, tensors, called) if row else _other_encoder(found.component, made, tensors)
    if text is not None:
        return Found(None, None, text)
    missing = _missing(found.component, row, made)
    if not missing:
        return whole
    is_damaged = len(missing) < len(made) and (row is not None or found.component != "dit")
    return Found(None, None, _incomplete(f"{called} {layout}", made, missing), whole=whole if is_damaged else None)


def _called(found: Found, row: Member | None, made: Mapping[str, Recipe]) -> str:
    """Return what sentences call a file of a known component."""
    if found.component == "vae":
        is_newer = any(".downsamples.0.downsamples." in name or ".upsamples.0.upsamples." in name for name in made)
        return f"a Wan 2.{2 if is_newer else 1} VAE"
    return tables.KINDS.get(found.component or "") or f"a {row.title if row else 'Wan'} diffusion transformer"


def recipes(found: Found, tensors: Tensors, ignore: frozenset[str] = frozenset()) -> dict[str, Recipe]:
    """Return for each official name that the file provides how the network's tensor is made from it.

    `ignore`: names in the file that somebody else takes care of (scales of fp8 weights and the like). Raises
    WeightsError for a file that is none of the four components.
    """
    layout = _layout(found)
    present = tensors.keys() - ignore
    channels_last = _channels_last(layout, found.prefix, tensors)
    made = {}
    for name, choices in origins(layout).items():
        for origin in choices:
            sources = tuple(found.prefix + source for source in origin.sources)
            if present.issuperset(sources):
                stored = tensors[sources[0]].shape
                change = _rearranged(layout, name, stored, channels_last=channels_last)
                made[name] = replace(origin, sources=sources, **change)
                break
    return made


def surplus(
    found: Found, tensors: Tensors, made: Mapping[str, Recipe], ignore: frozenset[str] = frozenset()
) -> list[str]:
    """Return the names in the file that no recipe uses and that are not known to be harmless, sorted.

    Raises WeightsError for a file that is none of the four components.
    """
    layout = _layout(found)
    used = {source for recipe in made.values() for source in recipe.sources}
    return [name for name in sorted(tensors.keys() - used - ignore) if not _harmless(layout, name)]


def _layout(found: Found) -> Layout:
    for layout in tables.LAYOUTS:
        if (layout.component, layout.name) == (found.component, found.layout):
            return layout
    raise WeightsError(f"The file is {found.description}, which cannot be loaded here: choose a part of {titles()}.")


def _harmless(layout: Layout, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in layout.harmless)


# --- names ---


@cache
def origins(layout: Layout) -> dict[str, tuple[Recipe, ...]]:
    """Return where a layout has each official name, the first choice first, for as many layers as any model has."""
    layers, leaves = (VAE_LAYERS, LEAVES[:2]) if layout.component == "vae" else (LAYERS, LEAVES)  # no VAE is packed
    patterns = {pattern for member in (None, *members()) for pattern in _patterns(layout.component, member)}
    official = {name for pattern in patterns for name in _expand(pattern, layers)}
    for name in tuple(official):
        if name.endswith(".weight") and len(leaves) > 2:
            official |= {name.removesuffix("weight") + leaf for leaf in ("scales", "biases")}
    choices: dict[str, list[Recipe]] = {}
    for row in layout.table:
        for leaf, layer in product(leaves if row[0].endswith(".*") else ("",), layers if _numbered(row[0]) else (0,)):
            names, sources = (_expand(pattern.removesuffix(".*") + leaf, (layer,)) for pattern in row)
            for name, recipe in _pairs(names, sources):
                if name in official:
                    choices.setdefault(name, []).append(recipe)
    return {name: tuple(choices.get(name, [Recipe((name,))])) for name in sorted(official)}


def _patterns(component: str, member: Member | None = None) -> tuple[str, ...]:
    """Return the official names of a component; for a diffusion transformer those of a member, None: of every one."""
    own = member.signature.names if member is not None and component == "dit" else ()
    return own + tables.OFFICIAL[component]


def _pairs(names: list[str], sources: list[str]) -> Iterable[tuple[str, Recipe]]:
    """Read one row: as many sources as names, one that holds them all, or several that make one."""
    if len(names) == len(sources):
        return [(name, Recipe((source,))) for name, source in zip(names, sources, strict=True)]
    if len(names) == 1:
        return [(names[0], Recipe(tuple(sources)))]
    (source,) = sources
    return [(name, Recipe((source,), part, len(names))) for part, name in enumerate(names)]


def _expand(pattern: str, layers: Iterable[int]) -> list[str]:
    """Return the names that a pattern without .* stands for, layer by layer."""
    parts = re.split(r"[{}]", pattern.removesuffix("?"))
    names = ["".join(p) for p in product(*(part.split(",") if i % 2 else [part] for i, part in enumerate(parts)))]
    if not _numbered(pattern):
        return names
    return [name.replace(".N", f".{layer}") for layer in layers for name in names]


def _numbered(pattern: str) -> bool:
    return ".N" in pattern


# --- shapes ---


def _rearranged(layout: Layout, name: str, stored: tuple[int, ...], *, channels_last: bool) -> dict[str, Any]:
    """Return what of a recipe brings a tensor of shape `stored` into the network's shape."""
    ndim = len(stored)
    if ndim >= 4 and name.endswith(".weight"):
        wanted_last = layout.component in tables.CHANNELS_LAST_NETWORKS
        if channels_last == wanted_last:
            return {}
        return {"axes": (0, *range(2, ndim), 1) if wanted_last else (0, ndim - 1, *range(1, ndim - 1))}
    if name in layout.transposed:
        return {"axes": tuple(reversed(range(ndim)))}
    if name.endswith(".gamma") and ndim == 1:  # some leave out the axes over which it is the same
        return {"reshape": (*stored, *[1] * (2 if name.endswith(".norm.gamma") else 3))}
    if name == "patch_embedding.weight" and ndim == 2 and not stored[1] % PATCH**2:  # as one matrix
        return {"reshape": (stored[0], stored[1] // PATCH**2, 1, PATCH, PATCH)}
    leading = dict(layout.leading).get(name)
    return {"reshape": (1,) * leading + stored} if leading else {}


def _channels_last(layout: Layout, prefix: str, tensors: Tensors) -> bool:
    """Whether a file's convolutions have their input channels last: then their last two sides differ."""
    for origin in origins(layout).get(tables.CONVOLUTIONS.get(layout.component, ""), ()):
        info = tensors.get(prefix + origin.sources[0])
        if info is not None and len(info.shape) >= 4:
            return info.shape[-1] != info.shape[-2]
    return layout.channels_last


# --- what it is ---


def _best(tensors: Tensors) -> tuple[Found, int, int]:
    """Return the layout that knows the most names, how many it knows, and how many belong to nothing in it.

    Of equals, the one whose convolutions are stored as the file's.
    """
    best, found, names, layout = (0, False), Found(None, None, "an unknown file"), frozenset(), tables.LAYOUTS[0]
    for candidate in tables.LAYOUTS:
        known_names = _sources(candidate)
        for prefix in candidate.prefixes:
            known = sum(name[len(prefix) :] in known_names for name in tensors if name.startswith(prefix))
            fit = known, _channels_last(candidate, prefix, tensors) == candidate.channels_last
            if known and fit > best:
                best, layout, names = fit, candidate, known_names
                found = Found(layout.component, layout.name, layout.called, prefix)
    modules = {name.rpartition(".")[0] for name in names} - {""}
    inner = {name: name.removeprefix(found.prefix) for name in tensors}
    foreign = [n for n, short in inner.items() if short not in names and short.rpartition(".")[0] not in modules]
    return found, best[0], sum(not _harmless(layout, name) for name in foreign)


@cache
def _sources(layout: Layout) -> frozenset[str]:
    return frozenset(name for choices in origins(layout).values() for one in choices for name in one.sources)


def _row(found: Found, made: Mapping[str, Recipe], tensors: Tensors) -> Member | Unsupported | None:
    """Return the model whose signature a file has: first by marks, the most of them, then by sizes."""
    is_dit = found.component == "dit"
    stem = made.get("patch_embedding.weight") if is_dit else None
    head = made.get("head.head.bias", made.get("head.head.weight")) if is_dit else None
    facts = Facts(
        names=(*made, *(name.removeprefix(found.prefix) for name in tensors)),
        image_branch=any(".k_img." in name or name.startswith("img_emb.") for name in made),
        in_dim=None if stem is None else (*stem.shape(tensors), 0, 0)[1],
        out_dim=None if head is None else (*head.shape(tensors), 1)[0] // PATCH**2,
    )
    candidates: list[Member | Unsupported] = [row for row in members() if not row.twin] if is_dit else []
    candidates += [row for row in UNSUPPORTED if found.component in (None, row.component)]
    fitting = [row for row in candidates if row.signature.fits(facts)]
    return max(fitting, key=lambda row: len(row.signature.marks), default=None)


def _refused(row: Unsupported, found: Found, made: Mapping[str, Recipe], tensors: Tensors) -> str:
    """Describe a model that does not run here."""
    if row.component != "dit":
        return row.title
    signature, layout = row.signature, f" {_layout(found).called}" if found.layout else ""
    count = ""
    if not signature.marks and signature.in_dim is None:
        count = f" of {(*made['patch_embedding.weight'].shape(tensors), 0, 0)[1]} input channels"
    return f"{row.title}{count}{layout}, not {titles()}"


def _other_encoder(component: str | None, made: Mapping[str, Recipe], tensors: Tensors) -> str | None:
    """Name an encoder of another size, or the T5 of other models, whose tensors have the component's names."""
    if component not in ("t5_encoder", "clip"):
        return None
    layers = _layers(name for name in made if name.endswith(".norm1.weight"))
    if component == "t5_encoder" and len(layers) > 1 and _layers(n for n in made if ".pos_embedding." in n) == {0}:
        return "a T5 text encoder as SD3 and Flux use it (with positions in its first layer only), not UMT5"
    norm = made.get("norm.weight", made.get("pre_norm.weight"))
    width = math.prod(norm.shape(tensors)) if norm else None
    size = SIZES.get((component, width, len(layers)))
    return f"{tables.KINDS[component]} of another size ({size}: width {width}, {len(layers)} layers)" if size else None


def _rank(made: Mapping[str, Recipe], tensors: Tensors, kind: str) -> str | None:
    """Name one rank of a checkpoint whose matrices are cut into pieces: `self_attn.o` is a square when whole."""
    for name, recipe in made.items():
        if name.endswith(".self_attn.o.weight") and tensors[recipe.sources[0]].dtype in WHOLE_DTYPES:
            short, long = sorted((0, 0, *recipe.shape(tensors)))[-2:]
            if 0 < short < long and long % short == 0:
                return (
                    f"one of {long // short} ranks of {kind}: '{recipe.sources[0]}' is "
                    f"{list(recipe.shape(tensors))}, not {[long, long]}, merge the ranks first"
                )
    return None


def _layers(names: Iterable[str]) -> set[int]:
    return {int(name.split(".")[1]) for name in names}


def _missing(component: str | None, member: Member | None, made: Mapping[str, Recipe]) -> list[str]:
    """Return the official names that a file lacks, in as many layers as it has, quoted."""
    needed = [p for p in _patterns(component, member) if not p.endswith("?")] if component else []
    every = range(1 + max(_numbers(made), default=0))
    return [f"'{name}'" for pattern in needed for name in _expand(pattern, every) if name not in made]


def _incomplete(kind: str, made: Mapping[str, Recipe], missing: list[str]) -> str:
    """Name a part of a model: a shard or a damaged file."""
    layers = _numbers(made)
    has = f"has {len(layers)} layers ({min(layers)} to {max(layers)}) and " if layers else ""
    return f"only a part of {kind} (a shard of several, or an incomplete file): it {has}lacks {listed(missing)}"


def _numbers(made: Iterable[str]) -> set[int]:
    """Return the numbers of a file's layers, the parts that repeat in every network but the VAE."""
    return _layers(name for name in made if re.match(r"(blocks|transformer)\.\d", name))


def _concatenate_of(array: Any) -> Callable[[list[Any]], Any]:
    if isinstance(array, np.ndarray):
        return np.concatenate
    import mlx.core as mx

    return mx.concatenate
