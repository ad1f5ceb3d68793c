"""A LoRA file's names, in any spelling, as what is to be done to the official modules. Headers only, no data.

A name is split into (module, part), and the module looked up among all spellings of the model's own modules. Dots and
underscores are the same there, so flattened names need no guessing. Sources: kohya's musubi-tuner, LyCORIS, PEFT,
diffusers, lightx2v, kijai's WanVideoWrapper, and `convert_lora.py` of zai-org/SCAIL-2 for SwissArmyTransformer names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ...interface.errors import WeightsError, listed

UNKNOWN_LIMIT = 8  # names that match nothing: so many are reported, more are an error

# The last words of a name: which part of a module's change the tensor is, and which kind of branch the part makes.
KINDS = {"down": "low_rank", "up": "low_rank", "mid": "low_rank"}
KINDS |= {f"lokr_{part}": "lokr" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}
KINDS |= {f"hada_{part}": "loha" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}
PARTS = {part: part for part in (*KINDS, "alpha", "diff", "diff_b", "diff_m", "set_weight", "dora_scale")}
PARTS |= {"lora_down": "down", "lora_A": "down", "lora_up": "up", "lora_B": "up", "lora_mid": "mid"}
PARTS |= {"w_norm": "diff", "b_norm": "diff_b", "lora_magnitude_vector": "dora_scale"}
NAMED_BY_ADAPTER = ("lora_A", "lora_B", "lora_magnitude_vector")  # PEFT: lora_A.default.weight

# What may stand before a module, flattened; any of them may be nested.
FLATTENED = ("lora_unet_", "lycoris_")  # by kohya's tools, by LyCORIS
PREFIXES = (*FLATTENED, "base_model_model_", "model_", "diffusion_model_", "transformer_", "pipe_dit_", "module_", "_")

# The official modules in diffusers' spelling: in a block, and outside.
ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
ATTENTION |= {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}
BLOCK_MODULES = {"norm3": "norm2", "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2", "modulation": "scale_shift_table"}
BLOCK_MODULES |= {f"self_attn.{leaf}": f"attn1.{theirs}" for leaf, theirs in ATTENTION.items() if "img" not in leaf}
BLOCK_MODULES |= {f"cross_attn.{leaf}": f"attn2.{theirs}" for leaf, theirs in ATTENTION.items()}
EMBEDDERS = {"text_embedding.0": "text_embedder.linear_1", "text_embedding.2": "text_embedder.linear_2"}
EMBEDDERS |= {"time_embedding.0": "time_embedder.linear_1", "time_embedding.2": "time_embedder.linear_2"}
EMBEDDERS |= {"img_emb.proj.0": "image_embedder.norm1", "img_emb.proj.1": "image_embedder.ff.net.0.proj"}
EMBEDDERS |= {"img_emb.proj.3": "image_embedder.ff.net.2", "img_emb.proj.4": "image_embedder.norm2"}
EMBEDDERS |= {"time_projection.1": "time_proj"}
OTHER_MODULES = {official: f"condition_embedder.{theirs}" for official, theirs in EMBEDDERS.items()}
OTHER_MODULES |= {"head.head": "proj_out", "head.modulation": "scale_shift_table"}

# A block's modules in SwissArmyTransformer's spelling: a fused matrix has a LoRA for each of its parts.
SAT_MODULES = {"self_attn.o": "attention.dense", "ffn.0": "mlp.dense_h_to_4h", "ffn.2": "mlp.dense_4h_to_h"}
SAT_MODULES |= {"cross_attn.o": "cross_attention.dense", "cross_attn.q": "cross_attention.query"}
SAT_MODULES = {official: f"{theirs}.lora_layer" for official, theirs in SAT_MODULES.items()}
SAT_MODULES |= {f"self_attn.{leaf}": f"attention.query_key_value.lora_layer.{i}" for i, leaf in enumerate("qkv")}
SAT_MODULES |= {f"cross_attn.{leaf}": f"cross_attention.key_value.lora_layer.{i}" for i, leaf in enumerate("kv")}

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class Branch:
    """What runs beside a module's own product: dW of `kind` "low_rank", "lokr", "loha" or "full".

    `names` gives the file's name of each part: down [r, in] and up [out, r]; lokr_w1 and lokr_w2, or their factors _a
    and _b; hada_w1_a, _w1_b, _w2_a, _w2_b; diff [out, in]. Axes after the second are a kernel's.
    `scale` is alpha / rank; `dora` names DoRA's magnitudes [out].
    """

    kind: str
    names: dict[str, str]
    scale: float
    dora: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """The file's tensor `name`, of its target's shape: "add" it times `scale` and strength, or "set" the target."""

    name: str
    kind: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class LoraFile:
    """What a LoRA file does: `branches` by official module, `deltas` by official tensor; and what it cannot do.

    `skipped`: the reason by module, or by single tensor of the file. `unknown`: names that match no module at all.
    """

    branches: dict[str, Branch]
    deltas: dict[str, Delta]
    skipped: dict[str, str]
    unknown: tuple[str, ...]

    @property
    def biases(self) -> int:
        """How many biases change."""
        return sum(name.endswith(".bias") for name in self.deltas)

    @property
    def weights(self) -> int:
        """How many weights (matrices, norms, modulations) change."""
        return len(self.branches) + len(self.deltas) - self.biases

    def summary(self) -> str:
        """Return one line: matched, skipped and why, unknown."""
        reasons: dict[str, list[str]] = {}
        for what, reason in self.skipped.items():
            reasons.setdefault(reason, []).append(what)
        skipped = "; ".join(f"{listed(names)}: {reason}" for reason, names in reasons.items())
        why, which = (f" ({text})" if text else "" for text in (skipped, listed(self.unknown)))
        matched = f"{self.weights} weights and {self.biases} biases matched"
        return f"{matched}, {len(self.skipped)} skipped{why}, {len(self.unknown)} unknown{which}"


def alpha_names(names: Iterable[str]) -> list[str]:
    """Return the scalar tensors of a file whose values `parse` needs."""
    return [name for name in names if _split(name)[1] == "alpha"]


def parse(
    names: Iterable[str],
    shapes: Shapes,
    metadata: Mapping[str, str],
    targets: Shapes,
    *,
    alphas: Mapping[str, float] | None = None,
    allow_unknown: bool = False,
    source: str = "the LoRA",
) -> LoraFile:
    """Return what a file with tensors `names` of `shapes` does to a model with tensors `targets`.

    `targets` are official names and official (unpacked) shapes. `metadata` is the file's, and the text of an
    `adapter_config.json` beside it under that name; `alphas` are the values of the tensors in `alpha_names`.

    Raises WeightsError, naming `source`, for more than UNKNOWN_LIMIT unknown names unless `allow_unknown`, for two
    names of one tensor, for unreadable metadata, and when nothing fits.
    """
    names, config = list(names), _alpha_config(metadata, source)
    groups, unknown = _grouped(names, targets, source)
    if len(unknown) > UNKNOWN_LIMIT and not allow_unknown:
        raise WeightsError(
            f"{source}: {len(unknown)} of {len(names)} names match no module of this model ({listed(unknown)}): choose "
            "a LoRA made for SCAIL-2 or Wan 2.1 14B, or allow unknown names."
        )
    made = LoraFile({}, {}, {}, tuple(unknown))
    for group in groups:
        group.sizes.update({part: tuple(shapes[name]) for part, name in group.names.items()})
        try:
            _apply(group, targets, config, alphas or {}, made)
        except _Unfit as reason:
            made.skipped[group.module] = str(reason)
    if not made.branches and not made.deltas:
        raise WeightsError(
            f"{source} changes nothing in this model ({made.summary()}): choose a LoRA made for SCAIL-2 or Wan 2.1 14B."
        )
    return made


class _Unfit(Exception):
    """Why a module of the file cannot be applied."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A file's tensors and their shapes for one module, by part; `raw` is the module as the file spells it."""

    module: str
    raw: str
    names: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, Shape] = field(default_factory=dict)


def _grouped(names: list[str], targets: Collection[str], source: str) -> tuple[list[_Group], list[str]]:
    spellings = _spellings(targets)
    groups: dict[str, _Group] = {}
    unknown = []
    for name in names:
        raw, part = _split(name)
        if not part or (module := _official(raw, spellings)) is None:
            unknown.append(name)
            continue
        group = groups.setdefault(module, _Group(module, raw))
        if part in group.names:
            raise WeightsError(
                f"{source}: '{group.names[part]}' and '{name}' are the same tensor of '{module}': "
                "it holds more than one LoRA, use a file with one."
            )
        group.names[part] = name
    return list(groups.values()), unknown


def _split(name: str) -> tuple[str, str]:
    """Split a name into the module as the file spells it, and the part; "" when it ends in no known part."""
    *path, last = name.split(".")
    suffix, last = (last, path.pop()) if last in ("weight", "bias") and path else ("", last)
    if last not in PARTS and path and path[-1] in NAMED_BY_ADAPTER:
        last = path.pop()
    part = PARTS.get(last, "")
    if path and path[-1] == "lora":  # lora.down.weight
        path.pop()
    if part == "diff_m":  # lightx2v leaves the modulation's own name out
        path, part = [*path, "modulation"], "diff"
    if suffix == "bias":  # PEFT's lora_bias
        part = "up_bias" if part == "up" else ""
    return ".".join(path), part


def _spellings(targets: Collection[str]) -> dict[str, str]:
    """Return the official module for each flattened spelling, also for modules that only other Wan models have."""
    rows = {name.removesuffix(".weight").removesuffix(".bias"): () for name in targets}
    rows |= {official: (theirs,) for official, theirs in OTHER_MODULES.items()}
    for n in {name.split(".")[1] for name in targets if name.startswith("blocks.")}:
        for official, theirs in BLOCK_MODULES.items():
            sat = [f"transformer.layers.{n}.{SAT_MODULES[official]}"] if official in SAT_MODULES else []
            rows[f"blocks.{n}.{official}"] = (f"blocks.{n}.{theirs}", *sat)
    return {name.replace(".", "_"): official for official, names in rows.items() for name in (official, *names)}


def _official(raw: str, spellings: Mapping[str, str]) -> str | None:
    flat = raw.replace(".", "_")
    while flat not in spellings and (prefix := next((p for p in PREFIXES if flat.startswith(p)), "")):
        flat = flat.removeprefix(prefix)
    return spellings.get(flat)


def _apply(group: _Group, targets: Shapes, config: Mapping, alphas: Mapping[str, float], made: LoraFile) -> None:
    """Enter what `group` does into `made`; raises _Unfit, and enters nothing, when any of it does not fit."""
    module, names, sizes = group.module, group.names, group.sizes
    weight, bias = module if module in targets else f"{module}.weight", f"{module}.bias"
    if weight not in targets:
        raise _Unfit("this model has no such module")
    kind, rank = _branch(module, sizes, tuple(targets[weight]))
    scale = _scale(group, rank, config, alphas)
    choices = [(bias, "diff_b", "add", 1.0), (bias, "up_bias", "add", scale)]
    if kind is None:
        choices += [(weight, "set_weight", "set", 1.0), (weight, "diff", "add", 1.0)]
    deltas: dict[str, Delta] = {}
    used = {"alpha"}
    for target, part, how, factor in choices:
        if part in sizes and target not in deltas:
            _check_same(sizes[part], targets.get(target))
            deltas[target] = Delta(names[part], how, factor)
            used.add(part)
    if kind is None and not deltas:
        raise _Unfit(f"it has nothing but {', '.join(names)}")
    if kind is not None:
        parts = {part: name for part, name in names.items() if (KINDS | {"diff": "full"}).get(part) == kind}
        made.branches[module] = Branch(kind, parts, scale, names.get("dora_scale"))
        used |= {*parts, "dora_scale"}
    made.deltas.update(deltas)
    made.skipped.update({name: "unused beside its module's others" for part, name in names.items() if part not in used})


def _branch(module: str, sizes: Shapes, target: Shape) -> tuple[str | None, int | None]:
    """Return kind and rank of the module's branch; (None, None) where the weight takes a dense delta or none."""
    kinds = {KINDS[part] for part in sizes if part in KINDS}
    if len(kinds) > 1:
        raise _Unfit(f"it mixes {' and '.join(sorted(kinds))}")
    if not kinds and not (module.startswith("blocks.") and len(target) == 2 and sizes.keys() & {"diff", "set_weight"}):
        return None, None
    if kinds:
        size, rank = _factors(kind := kinds.pop(), sizes)
    elif "set_weight" in sizes:  # the matrix may be packed, and a branch can only add to it
        raise _Unfit("it replaces a whole matrix, which is not supported")
    else:
        kind, size, rank = "full", _matrix(sizes["diff"]), None
    if size != _matrix(target):
        raise _Unfit(f"the file has a matrix of {list(size)}, the model of {list(_matrix(target))}")
    magnitudes = sizes.get("dora_scale", target[:1])
    if magnitudes[:1] != target[:1] or math.prod(magnitudes) != target[0]:
        raise _Unfit(f"DoRA magnitudes {list(magnitudes)} are not one for each of {target[0]} outputs")
    return kind, rank


def _factors(kind: str, sizes: Shapes) -> tuple[Shape, int | None]:
    """Return the size of the matrix that the factors make, and their rank where alpha counts."""
    if sizes.keys() & {"mid", "lokr_t2", "hada_t1", "hada_t2"}:
        raise _Unfit("Tucker factors of a kernel are not supported")
    if kind == "low_rank":
        return _product(sizes, "up", "down")
    if kind == "loha":
        size, rank = _product(sizes, "hada_w1_a", "hada_w1_b")
        if size != _product(sizes, "hada_w2_a", "hada_w2_b")[0]:
            raise _Unfit("its factors make matrices of two sizes")
        return size, rank
    size, rank = (1, 1), None
    for side in ("lokr_w1", "lokr_w2"):
        found, rank = (_need(sizes, side), rank) if side in sizes else _product(sizes, f"{side}_a", f"{side}_b")
        size = (size[0] * found[0], size[1] * found[1])
    return size, rank


def _product(sizes: Shapes, left: str, right: str) -> tuple[Shape, int]:
    """Return the size and the rank of left @ right."""
    (out_dim, rank), (inner, in_dim) = _need(sizes, left), _need(sizes, right)
    if rank != inner or not rank:
        raise _Unfit(f"its factors have ranks {rank} and {inner}")
    return (out_dim, in_dim), rank


def _need(sizes: Shapes, part: str) -> Shape:
    if len(sizes.get(part, ())) < 2:
        raise _Unfit(f"it lacks a matrix '{part}'")
    return _matrix(sizes[part])


def _matrix(shape: Shape) -> Shape:
    """Return the shape as a matrix's, a kernel's axes joined to the inputs."""
    return (*shape[:1], math.prod(shape[1:]))


def _check_same(shape: Shape, target: Shape | None) -> None:
    if target is None or shape != tuple(target):
        raise _Unfit(f"the file has {list(shape)}, the model {list(target) if target else 'none'}")


def _alpha_config(metadata: Mapping[str, str], source: str) -> dict:
    """Return what the metadata says of alpha: PEFT's fields, and kohya's."""
    numbers = ("lora_alpha", "ss_network_alpha")
    config: dict = {key: metadata[key] for key in (*numbers, "use_rslora") if key in metadata}
    try:
        for blob in ("lora_adapter_metadata", "adapter_config.json"):
            for key, value in json.loads(metadata.get(blob, "{}")).items():
                config[key.removeprefix("transformer.")] = value
        return {
            "alpha_pattern": {key: float(alpha) for key, alpha in (config.get("alpha_pattern") or {}).items()},
            "use_rslora": str(config.get("use_rslora")).lower() == "true",
            **{key: float(config[key]) for key in numbers if config.get(key) not in (None, "", "None")},
        }
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{source}: its metadata cannot be read ({error}): download the file again.") from error


def _scale(group: _Group, rank: int | None, config: Mapping, alphas: Mapping[str, float]) -> float:
    if rank is None:
        return 1.0
    if "alpha" in group.names:
        return alphas[group.names["alpha"]] / rank
    if group.raw.startswith(FLATTENED):
        # Only here: kohya's converter to dotted names folds alpha into the factors, yet leaves its metadata as it was.
        return config.get("ss_network_alpha", rank) / rank
    own = (alpha for name, alpha in config["alpha_pattern"].items() if f".{group.raw}".endswith(f".{name}"))
    alpha = next(own, config.get("lora_alpha"))
    return 1.0 if alpha is None else alpha / (math.sqrt(rank) if config["use_rslora"] else rank)
