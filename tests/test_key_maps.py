"""Every public layout of the four components maps onto the networks at full size, from names and shapes alone.

The foreign names are built by other means than the tables: from the training checkpoint's own list, or by one
replacement after the other, as the public converters do.
"""

import json
import math
import re

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file
from support import DATA, GOLDENS

from mlx_backend.interface.errors import WeightsError
from mlx_backend.interface.sizes import WanConfig
from mlx_backend.members import members
from mlx_backend.members.member import Member
from mlx_backend.members.signature import Signature
from mlx_backend.weights.checkpoints import component_file, snapshot
from mlx_backend.weights.checkpoints.detect import dit_config, dit_settings
from mlx_backend.weights.formats.safetensors_file import TensorInfo, read_header
from mlx_backend.weights.names import key_maps
from mlx_backend.weights.names.key_maps import Recipe, identify, recipes, surplus
from mlx_backend.weights.names.layouts import snapshot_axes

KEYS = json.loads((DATA / "keys" / "scail2_14b.json").read_text(encoding="utf-8"))
OFFICIAL = {c: {n: tuple(s) for n, s in KEYS[c].items()} for c in ("dit", "vae", "t5_encoder", "clip")}
DIT, VAE, T5, CLIP = OFFICIAL.values()


def info(shape, dtype="BF16"):
    return TensorInfo(dtype, tuple(shape), 2 * math.prod(shape))


def infos(shapes):
    return {name: info(shape) for name, shape in shapes.items()}


def channels_last(shapes):
    return {n: (s[0], *s[2:], s[1]) if n.endswith("weight") and len(s) > 3 else s for n, s in shapes.items()}


def prefixed(prefix, shapes):
    return {prefix + name: shape for name, shape in shapes.items()}


def replaced(shapes, *pairs):
    for old, new in pairs:
        shapes = {re.sub(old, new, name): shape for name, shape in shapes.items()}
    return shapes


def training():
    fused = ((name, DIT[made[0]], len(made)) for name, made in KEYS["training_checkpoint"].items())
    return {name: (count * shape[0], *shape[1:]) for name, shape, count in fused}


def sequential(shapes):  # as MLX saves them: nn.Sequential puts "layers" before the number of a member
    inner = r"\b(text_embedding|time_embedding|time_projection|ffn|mlp|img_emb\.proj)\.(\d+)\."
    return channels_last(replaced(shapes, (inner, r"\1.layers.\2.")))


# fmt: off
DIT_DIFFUSERS = replaced(
    DIT, (r"(text|time)_embedding\.0", r"condition_embedder.\1_embedder.linear_1"),
    (r"(text|time)_embedding\.2", r"condition_embedder.\1_embedder.linear_2"),
    (r"time_projection\.1", "condition_embedder.time_proj"), (r"img_emb\.proj", "condition_embedder.image_embedder"),
    (r"embedder\.0", "embedder.norm1"), (r"embedder\.1", "embedder.ff.net.0.proj"), (r"embedder\.4", "embedder.norm2"),
    (r"embedder\.3", "embedder.ff.net.2"), (r"head\.head", "proj_out"), (r"(head\.)?modulation", "scale_shift_table"),
    ("norm3", "norm2"), (r"ffn\.0", "ffn.net.0.proj"), (r"ffn\.2", "ffn.net.2"), ("self_attn", "attn1"),
    ("cross_attn", "attn2"), (r"\.([kv])_img", r".add_\1_proj"), ("norm_k_img", "norm_added_k"),
    (r"\.([qkv])\.", r".to_\1."), (r"\.o\.", ".to_out.0."),
)
VAE_DIFFUSERS = replaced(
    VAE, (r"^conv1", "quant_conv"), (r"^conv2", "post_quant_conv"), (r"coder\.conv1", "coder.conv_in"),
    (r"head\.0", "norm_out"), (r"head\.2", "conv_out"), (r"middle\.0", "mid_block.resnets.0"),
    (r"middle\.1", "mid_block.attentions.0"), (r"middle\.2", "mid_block.resnets.1"), ("downsamples", "down_blocks"),
    *((rf"upsamples\.{4 * i + j}\.", f"up_blocks.{i}.resnets.{j}.") for i in range(4) for j in range(3)),
    *((rf"upsamples\.{4 * i + 3}\.", f"up_blocks.{i}.upsamplers.0.") for i in range(3)),
    (r"residual\.0", "norm1"), (r"residual\.2", "conv1"), (r"residual\.3", "norm2"), (r"residual\.6", "conv2"),
    ("shortcut", "conv_shortcut"),
)
HF_T5 = replaced(
    T5, ("token_embedding", "shared"), (r"^norm\.", "encoder.final_layer_norm."), ("blocks", "encoder.block"),
    (r"\.norm(\d)", lambda found: f".layer.{int(found[1]) - 1}.layer_norm"), (r"\.attn", ".layer.0.SelfAttention"),
    (r"pos_embedding\.embedding", "layer.0.SelfAttention.relative_attention_bias"), ("ffn", "layer.1.DenseReluDense"),
    (r"gate\.0", "wi_0"), ("fc1", "wi_1"), ("fc2", "wo"),
)
GGUF_T5 = replaced(
    T5, ("token_embedding", "token_embd"), (r"^norm\.", "enc.output_norm."), ("blocks", "enc.blk"),
    ("norm1", "attn_norm"), ("norm2", "ffn_norm"), (r"attn\.", "attn_"), (r"pos_embedding\.embedding", "attn_rel_b"),
    (r"ffn\.gate\.0", "ffn_gate"), (r"ffn\.fc1", "ffn_up"), (r"ffn\.fc2", "ffn_down"),
)
HF_CLIP = replaced(
    CLIP | {"cls_embedding": (1280,), "pos_embedding": (257, 1280), "head": (1024, 1280)},
    (r"\.norm", ".layer_norm"), ("pos_embedding", "embeddings.position_embedding.weight"),
    ("cls_emb", "embeddings.class_emb"), ("patch_", "embeddings.patch_"), ("pre_norm", "pre_layrnorm"),
    ("post_norm", "post_layernorm"), ("transformer", "encoder.layers"), (r"attn\.to_qkv", "self_attn.{qkv}"),
    (r"attn\.proj", "self_attn.out_proj"), (r"mlp\.0", "mlp.fc1"), (r"mlp\.2", "mlp.fc2"), ("^", "vision_model."),
    (r".*\.head", "visual_projection.weight"),
)
OPENCLIP = replaced(
    CLIP | {"cls_embedding": (1280,), "pos_embedding": (257, 1280)}, ("^cls_", "class_"), ("^pos_", "positional_"),
    ("patch_embedding", "conv1"), ("pre_norm", "ln_pre"), ("post_norm", "ln_post"), (r"norm(\d)", r"ln_\1"),
    (r"attn\.proj", "attn.out_proj"), (r"to_qkv\.", "in_proj_"), ("transformer", "transformer.resblocks"),
    (r"mlp\.0", "mlp.c_fc"), (r"mlp\.2", "mlp.c_proj"), ("^head", "proj"), ("^", "visual."),
)
WAN2GP = (("patch_embedding_(pose|mask)", r"\1_patch_embedding"),)
HF_MORE = ("spiece_model", "encoder.embed_tokens.weight", "decoder.block.0.layer.0.SelfAttention.q.weight")

# component, layout, tensors in the order of the official ones, further names that such files may hold
CASES = {
    "DiT": ("dit", "official", DIT, ("freqs",)),
    "DiT, ComfyUI": ("dit", "comfy", prefixed("model.diffusion_model.", DIT), ("model.diffusion_model.freqs",)),
    "DiT, ComfyUI, short": ("dit", "comfy", prefixed("diffusion_model.", DIT), ()),
    "DiT, diffusers": ("dit", "diffusers", DIT_DIFFUSERS, ()),
    "DiT, xocialize": ("dit", "xocialize", sequential(DIT), ()),
    "DiT, Wan2GP": ("dit", "wan2gp", replaced(DIT, *WAN2GP), ()),
    "VAE": ("vae", "official", VAE, ()),
    "VAE, prefixed": ("vae", "official", prefixed("model.", VAE), ()),
    "VAE, turnkey": ("vae", "turnkey", channels_last(VAE), ()),
    "VAE, diffusers": ("vae", "diffusers", VAE_DIFFUSERS, ()),
    "T5": ("t5_encoder", "official", T5, ()),
    "T5, turnkey": ("t5_encoder", "turnkey", replaced(T5, (r"gate\.0", "gate_proj")), ()),
    "T5, transformers": ("t5_encoder", "hf_t5", HF_T5, HF_MORE),
    "T5, llama.cpp": ("t5_encoder", "gguf_t5", GGUF_T5, ()),
    "CLIP, turnkey": ("clip", "turnkey", CLIP, ()),
    "CLIP": ("clip", "official", prefixed("visual.", CLIP), ("log_scale", "textual.head.weight")),
    "CLIP, xocialize": ("clip", "xocialize", sequential(prefixed("visual.", CLIP)), ("log_scale",)),
    "CLIP, transformers": ("clip", "hf_clip", HF_CLIP, ("vision_model.embeddings.position_ids", "text_model.a.b")),
    "CLIP, open_clip": ("clip", "openclip", OPENCLIP, ("transformer.resblocks.0.ln_1.bias", "text_projection")),
}
# fmt: on


def split(name):  # {qkv} stands for three projections that are one in ours
    return tuple(name.replace("{qkv}", f"{x}_proj") for x in "qkv") if "{qkv}" in name else (name,)


def apart(shapes):
    return {n: (s[0] // 3, *s[1:]) if "{qkv}" in name else s for name, s in shapes.items() for n in split(name)}


def check(component, layout, tensors, more=()):
    """Identify and map the tensors of a file; return the recipes, which make the network and use everything once."""
    found = identify(tensors | infos(dict.fromkeys(more, (1,))))
    assert (found.component, found.layout) == (component, layout)
    made = recipes(found, tensors)
    wanted = {n: tuple(s[i] for i in snapshot_axes(component, n, len(s))) for n, s in OFFICIAL[component].items()}
    assert {name: recipe.shape(tensors) for name, recipe in made.items()} == wanted
    assert surplus(found, tensors | infos(dict.fromkeys((*more, "x", "y"), ())), made, frozenset("y")) == ["x"]
    uses = sorted((source, recipe.part, recipe.parts) for recipe in made.values() for source in recipe.sources)
    parts = {source: count for source, _, count in uses}
    assert parts.keys() == tensors.keys()
    assert uses == sorted((source, i, count) for source, count in parts.items() for i in range(count))
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_layout_is_the_network_at_full_size(case):
    component, layout, shapes, more = CASES[case]
    made = check(component, layout, infos(apart(shapes)), more)
    assert [made[name].sources for name in OFFICIAL[component]] == [split(name) for name in shapes]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_training_checkpoint_is_split_in_its_own_order(prefix):
    made = check("dit", "training", infos(prefixed(prefix, training())))
    for source, names in KEYS["training_checkpoint"].items():
        assert [made[name] for name in names] == [Recipe((prefix + source,), i, len(names)) for i in range(len(names))]


def test_packed_tensors_keep_their_four_leaves():
    shapes = sequential(DIT)
    packed = [name for name in shapes if name.startswith("blocks.") and len(shapes[name]) == 2]
    for name in packed:
        rows, columns = shapes[name]
        shapes |= {name[: -len("weight")] + leaf: (rows, columns // 64) for leaf in ("scales", "biases")}
        shapes[name] = (rows, columns // 8)
    tensors = {name: info(shape, "U32" if name in packed else "BF16") for name, shape in shapes.items()}
    found = identify(tensors)
    assert (found.layout, len(packed)) == ("xocialize", 480)
    made = recipes(found, tensors)
    assert (len(made), surplus(found, tensors, made)) == (1307 + 2 * 480, [])
    assert made["blocks.7.ffn.2.biases"] == Recipe(("blocks.7.ffn.layers.2.biases",))


def test_scales_of_other_formats_do_not_hide_what_it_is_and_are_left_to_their_reader():
    extra = set(beside_linears(".weight_scale", ".weight_scale_2", ".input_scale", ".comfy_quant", prefix=""))
    tensors = infos(DIT | dict.fromkeys(extra | {"scaled_fp8"}, (1,)))
    found = identify(tensors)
    assert (found.component, found.layout) == ("dit", "official")
    made = recipes(found, tensors, frozenset(extra))
    assert len(made) == 1307
    assert surplus(found, tensors, made, frozenset(extra)) == ["scaled_fp8"]


@pytest.mark.parametrize("component", OFFICIAL)
def test_the_sizes_play_no_part(component):
    tensors = read_header(GOLDENS / "snapshot" / f"{component}.safetensors")
    found = identify(tensors)
    assert found.component == component
    assert len(recipes(found, tensors)) == len(tensors)
    assert identify(infos(dict.fromkeys(OFFICIAL[component], ()))).component == component


def test_what_transformers_may_leave_out():
    tensors = infos(replaced(HF_T5, ("shared", "encoder.embed_tokens")))
    assert recipes(identify(tensors), tensors)["token_embedding.weight"].sources == ("encoder.embed_tokens.weight",)
    tensors = infos(without(apart(HF_CLIP), "visual_projection"))
    assert CLIP.keys() - recipes(identify(tensors), tensors).keys() == {"head"}


@pytest.mark.parametrize("kind", [np.array, mx.array])
def test_the_numbers_of_transformers_become_the_networks(kind):
    golden = load_file(GOLDENS / "snapshot" / "clip.safetensors")
    arrays = {}
    for ours, theirs in zip(CLIP, HF_CLIP, strict=True):
        if ours in golden:
            array, names = np.squeeze(golden[ours]), split(theirs)
            arrays |= dict(zip(names, np.split(array.T if ours == "head" else array, len(names)), strict=True))
    tensors = infos({name: array.shape for name, array in arrays.items()})
    made = recipes(identify(tensors), tensors)
    assert made.keys() == golden.keys()
    for name, recipe in made.items():
        found = recipe.apply([kind(np.ascontiguousarray(arrays[source])) for source in recipe.sources])
        np.testing.assert_array_equal(np.array(found), golden[name])


def wan(channels=16, more=(), *, clip=False, width=5120, layers=40, out=16):
    """Return the tensors of another member of the family, with `more` names that it has."""
    shapes = resized(without(DIT, "_pose|_mask" if clip else "_pose|_mask|img"), {5120: width})
    shapes = without(shapes, "|".join(rf"^blocks\.{i}\." for i in range(layers, 40)) or "^$")
    ends = {"patch_embedding.weight": (width, channels, 1, 2, 2), "head.head.bias": (4 * out,)}
    return shapes | ends | dict.fromkeys(more, (9, 9))


def part(first, last, *more):
    kept = (*(f"blocks.{i}." for i in range(first, last + 1)), *more)
    return {name: shape for name, shape in DIT.items() if name.startswith(kept)}


def beside_linears(*leaves, prefix="diffusion_model.", join="."):
    stems = [n.removesuffix(".weight") for n, s in DIT.items() if n.startswith("blocks") and len(s) == 2]
    return {prefix + stem.replace(".", join) + leaf: (64, 5120) for stem in stems for leaf in leaves}


def without(shapes, pattern):
    return {name: shape for name, shape in shapes.items() if not re.search(pattern, name)}


def resized(shapes, sides):
    return {name: tuple(sides.get(side, side) for side in shape) for name, shape in shapes.items()}


VACE = [f"vace_blocks.{i}.self_attn.q.weight" for i in range(8)]
VAE22 = replaced(VAE, (r"(down|up)samples\.(\d+)", r"\1samples.0.\1samples.\2"))
T5_V11 = without(HF_T5, r"block\.[1-9].*relative")
T5_BASE = resized(without(HF_T5, r"block\.(1[2-9]|2\d)\."), {4096: 768})
VIT_L = resized(without(apart(HF_CLIP), r"layers\.(2[4-9]|3\d)\."), {1280: 1024, 5120: 4096})
TORN = {name: (shape[0] // 8, *shape[1:]) if shape[0] > 8 else shape for name, shape in training().items()}
# fmt: off
FAMILY = {
    "Wan 2.1 T2V 14B": (wan(), "wan2.1-t2v"),
    "Wan 2.1 T2V, ComfyUI": (prefixed("model.diffusion_model.", wan()), "wan2.1-t2v"),
    "Wan 2.1 I2V": (wan(36, clip=True), "wan2.1-i2v"),
    "Wan 2.2 I2V": (wan(36), "wan2.2-i2v-a14b"),
    "FLF2V": (wan(36, ["img_emb.emb_pos"], clip=True), "wan2.1-flf2v"),
    "TI2V-5B": (wan(48, width=3072, layers=30, out=48), "wan2.2-ti2v-5b"),
}
REFUSED = {
    "Fun": (wan(48, clip=True), "a Wan 2.1 Fun"),
    "Fun with a reference": (wan(48, ["ref_conv.weight"]), "a Wan Fun"),
    "camera": (wan(32, ["control_adapter.conv.weight"], clip=True), "camera control"),
    "VACE": (wan(16, ["vace_patch_embedding.weight", *VACE]), "VACE"),
    "VACE, its module alone": (dict.fromkeys(VACE, (5120, 5120)), "VACE"),
    "S2V": (wan(16, ["casual_audio_encoder.encoder.final_linear.weight"]), "S2V"),
    "HuMo": (wan(36, ["audio_proj.audio_proj_glob_1.layer.bias"]), "sound"),
    "Animate": (wan(36, ["face_adapter.fuser_blocks.0.k_norm.weight", "pose_patch_embedding.bias"]), "Animate"),
    "an unheard-of stem": (wan(77), "77 input channels"),
    "a flattened stem": (wan() | {"patch_embedding.weight": (9,), "head.head.bias": ()}, "0 input channels"),
    "SCAIL-1": (without(DIT, "_mask"), "SCAIL-1"),
    "SCAIL-1, training": (without(training(), "proj_mask"), "SCAIL-1"),
    "SCAIL-1, Wan2GP": (without(replaced(DIT, *WAN2GP), "mask_"), "SCAIL-1"),
    "VAE, its decoder": (without(VAE, "^encoder"), "only a part of a Wan 2.1 VAE"),
    "first shard": (part(0, 6, "patch_", "text_", "time_"), "7 layers (0 to 6) and lacks 'img_emb.proj.0.weight'"),
    "middle shard": (part(7, 13), "only a part of a Wan diffusion transformer"),
    "last shard": (part(33, 39, "head.", "img_emb."), "7 layers (33 to 39) and lacks"),
    "shard by the alphabet": (dict(sorted(DIT.items())[:300]), "only a part of a Wan"),
    "shard of no block": (part(1, 0, "patch_", "text_", "head."), "part of a SCAIL-2 diffusion transformer"),
    "rank of fully sharded data": (TORN, "one of 8 ranks of a SCAIL-2"),
    "T5 shard": (without(HF_T5, r"block\.1"), "only a part of a UMT5"),
    "T5 v1.1": (T5_V11, "as SD3 and Flux use it"),
    "T5 v1": (replaced(without(T5_V11, "wi_1"), ("wi_0", "wi")), "first-generation T5"),
    "UMT5 base": (T5_BASE, "of another size (base: width 768, 12 layers)"),
    "CLIP ViT-L": (VIT_L, "of another size (ViT-L: width 1024, 24 layers)"),
    "SigLIP": (apart(HF_CLIP) | {"vision_model.head.probe": (1, 1, 1152)}, "SigLIP"),
    "LoRA, lightx2v": (beside_linears(".lora_down.weight", ".lora_up.weight", ".diff_b"), "the LoRA loader"),
    "LoRA, PEFT": (beside_linears(".lora_A.default.weight", ".lora_B.default.weight", prefix="base_model."), "a LoRA"),
    "LoRA, kohya": (beside_linears(".lora_down.weight", ".alpha", prefix="lora_unet_", join="_"), "a LoRA"),
    "LoRA, training": ({"transformer.layers.0.attention.dense.lora_layer.0.matrix_A.0": (9, 9)}, "a LoRA"),
    "LoKr": (beside_linears(".lokr_w1", ".lokr_w2", prefix="lycoris_", join="_"), "a LoRA"),
    "Stable Diffusion": (
        prefixed("model.diffusion_model.", dict.fromkeys(["time_embed.0.weight", *"abcd"], (9, 9))),
        "does not know (5 tensors, the first is 'model.diffusion_model.a')"),
    "Flux": ({f"double_blocks.{i}.img_attn.qkv.weight": (9216, 3072) for i in range(19)}, "does not know"),
    "nothing": ({}, "does not know (0 tensors)"),
}
FUSED = np.arange(24, dtype=np.float32).reshape(6, 4)
CONV = FUSED.reshape(2, 1, 2, 2, 3)
RECIPES = [
    (Recipe(("a",), 1, 3), [FUSED], FUSED[2:4]),
    (Recipe(("a",), 1, 2), [FUSED[:, 0]], FUSED[3:, 0]),
    (Recipe(("a", "b", "c")), [FUSED, FUSED + 24, FUSED[:2]], np.concatenate([FUSED, FUSED + 24, FUSED[:2]])),
    (Recipe(("a",), axes=(1, 0)), [FUSED], FUSED.T),
    (Recipe(("a",), axes=(0, 4, 1, 2, 3)), [CONV], np.moveaxis(CONV, -1, 1)),
    (Recipe(("a",), reshape=(1, 1, 6)), [FUSED[:, 0]], FUSED[None, None, :, 0]),
    (Recipe(("a",), 1, 2, (2, 0, 1), (3, 2, 2)), [FUSED], FUSED[3:].reshape(3, 2, 2).transpose(2, 0, 1)),
]
IMPOSSIBLE = [
    (Recipe(("a",), 0, 4), r"'a' of shape \[6, 4\] cannot be split into 4 equal parts"),
    (Recipe(("a", "b")), r"'a' of shape \[6, 4\], 'b' of shape \[6, 5\] cannot be stacked"),
    (Recipe(("a",), reshape=(5, 5)), r"cannot take the shape \[5, 5\]"),
    (Recipe(("a",), axes=(0, 2, 1)), "cannot have the 3 axes"),
    (Recipe(("a", "z")), "lacks 'z'"),
]
# fmt: on


@pytest.mark.parametrize("case", FAMILY)
def test_the_family_is_told_by_names_and_shapes(case):
    tensors, member = FAMILY[case]
    found = identify(infos(tensors))
    assert (found.component, found.member) == ("dit", member)


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_named(case):
    shapes, text = REFUSED[case]
    found = identify(infos(shapes))
    assert text in found.description
    assert (found.component, found.layout) == (None, None)
    with pytest.raises(WeightsError, match="choose a part of SCAIL-2"):
        recipes(found, infos(shapes))


class Header:
    """A file of which only the header is there."""

    metadata: dict = {}  # noqa: RUF012

    def __init__(self, path, tensors):
        self.path, self.tensors = path, tensors

    def read(self, name):
        raise AssertionError(f"{name} was read")


@pytest.mark.parametrize("case", [*REFUSED, *CASES])
def test_inspecting_and_loading_name_a_file_equally(case, tmp_path, monkeypatch):
    tensors = infos(REFUSED[case][0] if case in REFUSED else apart(CASES[case][2]))
    for module in (snapshot, component_file):
        monkeypatch.setattr(module, "open_tensors", lambda path: Header(path, tensors))
    found = snapshot.identify_file(tmp_path)[1]
    for component in OFFICIAL:
        if component == found.component:
            source = component_file.open_component(tmp_path, component)
            assert (source.description, source.member) == (found.description, found.member)
        elif found.whole is None or found.whole.component != component:
            with pytest.raises(WeightsError, match=re.escape(f"{tmp_path} is {found.description}, but ")):
                component_file.open_component(tmp_path, component)
        else:  # loading goes on to say which tensors it lacks
            assert component_file.open_component(tmp_path, component).tensors


def test_a_damaged_file_may_be_told_by_what_it_lacks():
    found = identify(infos(without(DIT, r"head\.head\.bias|blocks\.7\.cross_attn\.k_img")))
    assert "lacks 'blocks.7.cross_attn.k_img.weight', 'blocks.7.cross_attn.k_img.bias'" in found.description
    assert (found.component, found.whole.component, found.whole.member) == (None, "dit", "scail-2-14b")
    assert identify(infos(part(7, 13))).whole is None


TOY = Member(
    name="toy",
    title="Toy",
    hub_repositories=(),
    components=("vae", "t5_encoder"),
    defaults=members()[0].defaults,
    signature=Signature(image_branch=False, in_dim=16, out_dim=16),
)


def test_a_row_of_the_table_is_enough_for_a_model_to_be_known(tmp_path, monkeypatch):
    monkeypatch.setattr(key_maps, "members", lambda: (*(row for row in members() if row.name != "wan2.1-t2v"), TOY))
    for prefix in ("", "model.diffusion_model."):
        tensors = infos(prefixed(prefix, wan(layers=3)))
        found = identify(tensors)
        assert (found.component, found.member) == ("dit", "toy")
        assert found.description.startswith("a Toy diffusion transformer")
        assert surplus(found, tensors, recipes(found, tensors)) == []
    config = dit_config(tmp_path, infos(wan(layers=3)), {}, TOY)
    assert config == WanConfig(
        dim=5120, ffn_dim=13824, freq_dim=256, num_heads=40, num_layers=3, in_dim=16, out_dim=16, text_dim=4096
    )
    assert dit_config(tmp_path, infos(wan(layers=3)), dit_settings(config), TOY) == config
    damaged = identify(infos(without(wan(layers=3), r"blocks\.1\.norm3\.bias")))
    assert (damaged.component, damaged.whole.member) == (None, "toy")
    assert identify(infos(DIT)).member == "scail-2-14b"
    for relative in ("VACE", "S2V", "Fun", "camera"):
        assert REFUSED[relative][1] in identify(infos(REFUSED[relative][0])).description


@pytest.mark.parametrize(("kind", "stack"), [(np.array, None), (mx.array, None), (mx.array, mx.concatenate)])
@pytest.mark.parametrize(("recipe", "sources", "expected"), RECIPES)
def test_a_recipe_is_what_its_shape_says(kind, stack, recipe, sources, expected):
    made = recipe.apply([kind(array) for array in sources], stack)
    assert type(made) is type(kind([0]))
    assert tuple(made.shape) == recipe.shape({n: info(a.shape) for n, a in zip("abc", sources, strict=False)})
    np.testing.assert_array_equal(np.array(made), expected)


@pytest.mark.parametrize(("recipe", "text"), IMPOSSIBLE)
def test_shapes_that_cannot_be_are_refused(recipe, text):
    with pytest.raises(WeightsError, match=text):
        recipe.shape(infos({"a": (6, 4), "b": (6, 5)}))
