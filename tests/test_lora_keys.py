"""Names of LoRA files in every spelling, made from the full-size model's own names, as changes to its modules."""

import itertools
import json

import pytest
from support import DATA

from mlx_backend.interface.errors import WeightsError
from mlx_backend.weights.lora.keys import UNKNOWN_LIMIT, Branch, Delta, alpha_names, parse

TARGETS = {
    name: tuple(shape)
    for name, shape in json.loads((DATA / "keys" / "scail2_14b.json").read_text(encoding="utf-8"))["dit"].items()
}
SHAPES = {name.removesuffix(".weight"): shape for name, shape in TARGETS.items() if name.endswith(".weight")}
LINEARS = [module for module, shape in SHAPES.items() if len(shape) == 2]
STEMS = [module for module in SHAPES if module.startswith("patch_embedding")]
SAT_BLOCK = {
    "attention.query_key_value.lora_layer": ("self_attn.q", "self_attn.k", "self_attn.v"),
    "attention.dense.lora_layer": ("self_attn.o",),
    "cross_attention.query.lora_layer": ("cross_attn.q",),
    "cross_attention.key_value.lora_layer": ("cross_attn.k", "cross_attn.v"),
    "cross_attention.dense.lora_layer": ("cross_attn.o",),
    "mlp.dense_h_to_4h.lora_layer": ("ffn.0",),
    "mlp.dense_4h_to_h.lora_layer": ("ffn.2",),
}
DIFFUSERS = (
    (".self_attn.", ".attn1."),
    (".cross_attn.", ".attn2."),
    (".norm3", ".norm2"),
    (".ffn.0", ".ffn.net.0.proj"),
    (".ffn.2", ".ffn.net.2"),
    (".k_img", ".add_k_proj"),
    (".v_img", ".add_v_proj"),
    (".norm_k_img", ".norm_added_k"),
    *((f"{kind}_embedding.0", f"condition_embedder.{kind}_embedder.linear_1") for kind in ("text", "time")),
    *((f"{kind}_embedding.2", f"condition_embedder.{kind}_embedder.linear_2") for kind in ("text", "time")),
    ("time_projection.1", "condition_embedder.time_proj"),
    *((f"img_emb.proj.{i}", f"condition_embedder.image_embedder.norm{n}") for i, n in ((0, 1), (4, 2))),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    ("head.head", "proj_out"),
)


def flat(module):
    return module.replace(".", "_")


def half_flat(module):
    """`lora_unet_blocks_36.cross_attn.o`: only the dot after "blocks" is gone."""
    return module.replace("blocks.", "blocks_")


def diffusers(module):
    for ours, theirs in DIFFUSERS:
        if module.endswith(ours) or (ours.endswith(".") and ours in module):
            module = module.replace(ours, theirs)
    head, dot, leaf = module.rpartition(".")
    if leaf in "qkv" and dot:
        return f"{head}.to_{leaf}"
    return f"{head}.to_out.0" if leaf == "o" else module


SPELLINGS = {
    "official": ("", str, "lora_down.weight", "lora_up.weight"),
    "comfy": ("diffusion_model.", str, "lora_down.weight", "lora_up.weight"),
    "checkpoint": ("model.diffusion_model.", str, "lora_A.weight", "lora_B.weight"),
    "ai-toolkit": ("diffusion_model.", str, "lora_A.weight", "lora_B.weight"),
    "diffusers": ("transformer.", diffusers, "lora_A.weight", "lora_B.weight"),
    "diffusers-old": ("transformer.", diffusers, "lora.down.weight", "lora.up.weight"),
    "finetrainers": ("", diffusers, "lora_A.weight", "lora_B.weight"),
    "peft": ("base_model.model.", str, "lora_A.weight", "lora_B.weight"),
    "peft-named": ("base_model.model.", diffusers, "lora_A.default.weight", "lora_B.default.weight"),
    "peft-nested": ("base_model.model.transformer.", diffusers, "lora_A.anna.weight", "lora_B.anna.weight"),
    "diffsynth": ("pipe.dit.", str, "lora_A.default.weight", "lora_B.default.weight"),
    "kohya": ("lora_unet_", flat, "lora_down.weight", "lora_up.weight"),
    "kohya-diffusers": ("lora_unet_", lambda module: flat(diffusers(module)), "lora_down.weight", "lora_up.weight"),
    "wan-fun": ("lora_unet__", flat, "lora_down.weight", "lora_up.weight"),
    "musubi-half": ("lora_unet_", half_flat, "lora_down.weight", "lora_up.weight"),
    "lycoris": ("lycoris_", lambda module: flat(diffusers(module)), "lora_down.weight", "lora_up.weight"),
}


def low_rank(module, rank=4):
    """Shapes of (down, up)."""
    out_dim, *inputs = SHAPES[module]
    return (rank, *inputs), (out_dim, rank, *[1] * (len(inputs) - 1))


def read(shapes, metadata=None, **options):
    return parse(shapes, shapes, metadata or {}, TARGETS, **options)


def pair(module="blocks.7.self_attn.q", prefix=""):
    down, up = low_rank(module)
    return {f"{prefix}{module}.lora_A.weight": down, f"{prefix}{module}.lora_B.weight": up}


def scale_of(shapes, metadata=None, **options):
    (branch,) = read(shapes, metadata, **options).branches.values()
    return branch.scale


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_every_matrix_is_known(spelling):
    prefix, spell, down, up = SPELLINGS[spelling]
    names = {module: f"{prefix}{spell(module)}" for module in (*LINEARS, *STEMS)}
    assert len(set(names.values())) == len(LINEARS) + len(STEMS) == 480 + 8 + 3
    shapes = {}
    for module, name in names.items():
        shapes[f"{name}.{down}"], shapes[f"{name}.{up}"] = low_rank(module)
    made = read(shapes)
    assert made.branches == {
        module: Branch("low_rank", {"down": f"{name}.{down}", "up": f"{name}.{up}"}, 1.0)
        for module, name in names.items()
    }
    assert (made.deltas, made.skipped, made.unknown) == ({}, {}, ())


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_every_dense_delta_is_known(spelling):
    prefix, spell, *_ = SPELLINGS[spelling]
    shapes, expected = {}, {}
    for target, shape in TARGETS.items():
        module, _, kind = target.rpartition(".")
        if kind == "weight" and module.startswith("blocks.") and len(shape) == 2:
            continue
        part = {"weight": "diff", "bias": "diff_b", "modulation": "diff_m"}[kind]
        name = f"{prefix}{spell(module)}.{part}"
        shapes[name], expected[target] = shape, Delta(name, "add")
    made = read(shapes)
    assert made.deltas == expected
    assert (made.branches, made.skipped, made.unknown) == ({}, {}, ())
    assert (made.weights, made.biases) == (1307 - 480 - 533, 533)


def test_names_of_swiss_army_transformer_checkpoints():
    """The DPO LoRA of zai-org/SCAIL-2 as published: 800 factors of 400 modules; fused matrices have one per part."""
    shapes, expected = {}, {}
    for block, (sat, parts) in itertools.product(range(40), SAT_BLOCK.items()):
        for i, ours in enumerate(parts):
            module, index = f"blocks.{block}.{ours}", f".{i}" if len(parts) > 1 else ""
            name = f"model.diffusion_model.transformer.layers.{block}.{sat}{index}"
            shapes[f"{name}.down.weight"], shapes[f"{name}.up.weight"] = low_rank(module, 128)
            expected[module] = Branch("low_rank", {"down": f"{name}.down.weight", "up": f"{name}.up.weight"}, 1.0)
    assert len(shapes) == 800
    assert read(shapes).branches == expected
    bias = "model.diffusion_model.transformer.layers.3.attention.query_key_value.lora_layer.1.diff_b"
    assert read({bias: (5120,)}).deltas == {"blocks.3.self_attn.k.bias": Delta(bias, "add")}


def lightx2v():
    """The published step-distill LoRA for I2V 14B: matrices of low rank, the rest whole, 36 input channels."""
    shapes = {}
    for target, shape in TARGETS.items():
        module, _, kind = target.rpartition(".")
        name = f"diffusion_model.{module}"
        if module in ("patch_embedding_pose", "patch_embedding_mask") or kind == "modulation":
            continue
        if kind == "bias":
            shapes[f"{name}.diff_b"] = shape
        elif len(shape) == 2 and module != "head.head":
            shapes[f"{name}.lora_down.weight"], shapes[f"{name}.lora_up.weight"] = low_rank(module, 64)
        else:
            shapes[f"{name}.diff"] = shape
    shapes["diffusion_model.patch_embedding.diff"] = (5120, 36, 1, 2, 2)
    return shapes


def test_a_lightx2v_file_applies_but_for_its_stem():
    shapes = lightx2v()
    ends = [name.rpartition(".")[2] for name in shapes]
    assert (ends.count("weight") / 2, ends.count("diff"), ends.count("diff_b")) == (487, 244, 531)
    made = read(shapes)
    # 12 matrices and 6 norms in each of 40 blocks; outside 2 + 2 + 1 + 2 matrices, two norms, the head
    assert len(made.branches) == 40 * 12 + 7 == 487
    assert made.weights == 40 * (12 + 6) + 10 == 730
    assert made.biases == 40 * (12 + 1) + 10 == 530
    assert made.skipped == {"patch_embedding": "the file has [5120, 36, 1, 2, 2], the model [5120, 20, 1, 2, 2]"}
    assert "head.head.weight" in made.deltas
    assert made.summary() == (
        "730 weights and 530 biases matched, 1 skipped (patch_embedding: the file has [5120, 36, 1, 2, 2], "
        "the model [5120, 20, 1, 2, 2]), 0 unknown"
    )


def test_alpha_comes_from_the_tensor_first():
    name = "lora_unet_blocks_0_ffn_0"
    shapes = {f"{name}.lora_down.weight": (8, 5120), f"{name}.lora_up.weight": (13824, 8), f"{name}.alpha": ()}
    assert alpha_names(shapes) == [f"{name}.alpha"]
    metadata = {"ss_network_alpha": "4", "lora_alpha": "4"}
    assert scale_of(shapes, metadata, alphas={f"{name}.alpha": 2.0}) == 2 / 8
    shapes.pop(f"{name}.alpha")
    assert scale_of(shapes, metadata) == 4 / 8
    assert scale_of(shapes, {"ss_network_alpha": "None"}) == 1


def test_kohyas_metadata_does_not_count_for_dotted_names():
    """musubi-tuner's convert_lora.py multiplies alpha into the factors and keeps the metadata."""
    assert scale_of(pair(prefix="diffusion_model."), {"ss_network_alpha": "1"}) == 1


@pytest.mark.parametrize(
    ("metadata", "scale"),
    [
        ({}, 1.0),
        ({"lora_alpha": "8", "r": "4"}, 2.0),
        ({"lora_alpha": "8", "use_rslora": "True"}, 4.0),
        ({"use_rslora": "true"}, 1.0),
        ({"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 2, "transformer.r": 4})}, 0.5),
        ({"adapter_config.json": json.dumps({"lora_alpha": 2, "use_rslora": True, "alpha_pattern": None})}, 1.0),
        ({"adapter_config.json": json.dumps({"lora_alpha": 2, "alpha_pattern": {"self_attn.q": 16}})}, 4.0),
        ({"adapter_config.json": json.dumps({"lora_alpha": 2, "alpha_pattern": {"attn.q": 16, "lf_attn.q": 3}})}, 0.5),
        ({"lora_adapter_metadata": json.dumps({"text_encoder.lora_alpha": 2})}, 1.0),
    ],
)
def test_alpha_in_metadata(metadata, scale):
    assert scale_of(pair(prefix="base_model.model."), metadata) == scale


@pytest.mark.parametrize("text", ["{", "[]", '{"lora_alpha": "many"}', '{"alpha_pattern": 3}'])
def test_metadata_that_cannot_be_read(text):
    with pytest.raises(WeightsError, match="x.safetensors: its metadata cannot be read"):
        read(pair(), {"adapter_config.json": text}, source="x.safetensors")


Q = "lycoris_blocks_3_attn1_to_q"
LORA = {"lora_down.weight": (8, 5120), "lora_up.weight": (5120, 8)}
LOKR = {"lokr_w1": (16, 16), "lokr_w2_a": (320, 8), "lokr_w2_b": (8, 320)}
LOHA = {"hada_w1_a": (5120, 8), "hada_w1_b": (8, 5120), "hada_w2_a": (5120, 8), "hada_w2_b": (8, 5120)}


@pytest.mark.parametrize(
    ("kind", "parts", "scale"),
    [
        ("lokr", LOKR, 0.5),
        ("lokr", {"lokr_w1_a": (64, 8), "lokr_w1_b": (8, 64), "lokr_w2": (80, 80)}, 0.5),
        ("lokr", {"lokr_w1": (64, 80), "lokr_w2": (80, 64)}, 1.0),  # no rank, so alpha does not count
        ("loha", LOHA, 0.5),
        ("low_rank", LORA, 0.5),
        ("full", {"diff": (5120, 5120)}, 1.0),
    ],
)
def test_lycoris_kinds(kind, parts, scale):
    shapes = {f"{Q}.{part}": shape for part, shape in parts.items()} | {f"{Q}.alpha": ()}
    made = read(shapes, alphas={f"{Q}.alpha": 4.0})
    names = {part.replace("lora_", "").removesuffix(".weight"): f"{Q}.{part}" for part in parts}
    assert made.branches == {"blocks.3.self_attn.q": Branch(kind, names, scale)}
    assert not made.skipped


@pytest.mark.parametrize(
    "name",
    ["dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.default.weight", "lora_magnitude_vector.weight"],
)
@pytest.mark.parametrize("shape", [(5120,), (5120, 1)])
def test_dora(name, shape):
    shapes = pair() | {f"blocks.7.self_attn.q.{name}": shape}
    assert read(shapes).branches["blocks.7.self_attn.q"].dora == f"blocks.7.self_attn.q.{name}"


def test_other_spellings_of_norms_biases_and_modulations():
    norm = read({"lycoris_blocks_3_norm2.w_norm": (5120,), "lycoris_blocks_3_norm2.b_norm": (5120,)})
    assert norm.deltas.keys() == {"blocks.3.norm3.weight", "blocks.3.norm3.bias"}
    shapes = {
        "diffusion_model.blocks.1.modulation.diff": (1, 6, 5120),
        "transformer.scale_shift_table.diff": (1, 2, 5120),
    }
    assert read(shapes).deltas.keys() == {"blocks.1.modulation", "head.modulation"}
    peft = read(pair() | {"blocks.7.self_attn.q.lora_B.bias": (5120,)}, {"lora_alpha": "8"})
    assert peft.deltas == {"blocks.7.self_attn.q.bias": Delta("blocks.7.self_attn.q.lora_B.bias", "add", 2.0)}


def test_set_weight():
    made = read({"norm.x": (1,), "blocks.1.norm3.set_weight": (5120,), "blocks.1.ffn.0.set_weight": (13824, 5120)})
    assert made.deltas == {"blocks.1.norm3.weight": Delta("blocks.1.norm3.set_weight", "set")}
    assert made.skipped == {"blocks.1.ffn.0": "it replaces a whole matrix, which is not supported"}
    assert made.unknown == ("norm.x",)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"lora_down.weight": (4, 5120)}, "lacks a matrix 'up'"),
        (LORA | {"lora_down.weight": (4, 5120)}, "ranks 8 and 4"),
        ({"lora_down.weight": (0, 5120), "lora_up.weight": (5120, 0)}, "ranks 0 and 0"),
        ({"lora_down.weight": (), "lora_up.weight": ()}, "lacks a matrix 'up'"),
        (LORA | {"lora_up.weight": (1536, 8)}, "matrix of [1536, 5120], the model of [5120, 5120]"),
        (LORA | {"lora_mid.weight": (8, 8)}, "Tucker"),
        (LOKR | {"lokr_t2": (8, 8, 2, 2)}, "Tucker"),
        (LOHA | {"hada_t1": (8, 8, 2, 2)}, "Tucker"),
        ({"lokr_w1": (16, 16)}, "lacks a matrix 'lokr_w2_a'"),
        (LOHA | {"hada_w2_a": (5120, 4), "hada_w2_b": (4, 10)}, "two sizes"),
        (LOHA | LOKR, "mixes loha and lokr"),
        (LORA | {"dora_scale": (1, 5120)}, "DoRA magnitudes"),
        (LORA | {"diff_b": (1,)}, "the file has [1]"),
        ({"diff": (5120, 1)}, "matrix of [5120, 1]"),
        ({"alpha": ()}, "nothing but alpha"),
    ],
)
def test_what_does_not_fit_is_skipped_whole_with_its_reason(parts, reason):
    shapes = pair() | {f"{Q}.{part}": shape for part, shape in parts.items()}
    made = read(shapes, alphas={f"{Q}.alpha": 1.0})
    assert made.branches.keys() == {"blocks.7.self_attn.q"}
    assert not made.deltas
    assert made.skipped.keys() == {"blocks.3.self_attn.q"}
    assert reason in made.skipped["blocks.3.self_attn.q"]
    assert "1 skipped (blocks.3.self_attn.q: " in made.summary()


def test_a_tensor_without_use_is_reported_by_its_own_name():
    made = read(pair() | {"blocks.7.self_attn.q.diff": (5120, 5120)})
    assert made.skipped == {"blocks.7.self_attn.q.diff": "unused beside its module's others"}
    assert made.weights == 1


def test_modules_that_only_other_wan_models_have_are_skipped():
    t2v = {name: shape for name, shape in TARGETS.items() if "img" not in name}
    shapes = pair() | pair("blocks.7.cross_attn.k_img") | pair("img_emb.proj.1")
    made = parse(shapes, shapes, {}, t2v)
    assert set(made.skipped.values()) == {"this model has no such module"}
    assert made.skipped.keys() == {"blocks.7.cross_attn.k_img", "img_emb.proj.1"}


def test_a_handful_of_unknown_names_is_reported_and_more_are_an_error():
    shapes = pair() | {f"vace_blocks.{i}.proj.lora_A.weight": (4, 4) for i in range(UNKNOWN_LIMIT)}
    made = read(shapes)
    assert len(made.unknown) == UNKNOWN_LIMIT
    assert ", 8 unknown (vace_blocks.0." in made.summary()
    assert made.summary().endswith(" and 5 more)")
    shapes["transformer_2.blocks.0.attn1.to_q.lora_A.weight"] = (4, 5120)
    with pytest.raises(WeightsError, match=r"a\.safetensors: 9 of 11 names match no module .*vace_blocks\.0\.proj"):
        read(shapes, source="a.safetensors")
    assert len(read(shapes, allow_unknown=True).unknown) == UNKNOWN_LIMIT + 1


@pytest.mark.parametrize(
    "shapes", [{}, {"blocks.7.self_attn.q.lora_A.weight": (4, 1536)}, {"blocks.7.self_attn.q.weight": (5120, 5120)}]
)
def test_a_file_that_changes_nothing_is_an_error(shapes):
    with pytest.raises(WeightsError, match="changes nothing in this model"):
        read(shapes)


def test_two_loras_in_one_file_are_an_error():
    with pytest.raises(WeightsError, match="same tensor of 'blocks.7.self_attn.q': it holds more than one LoRA"):
        read(pair() | pair(prefix="transformer."))
