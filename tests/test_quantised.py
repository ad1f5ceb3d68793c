"""ComfyUI's quantised files: what is found in their headers, and what their weights are worth.

The expected values come from comfy-kitchen 0.2.31's eager backend, run once on the codes that `codes` makes; it is not
needed here. What the quantisers write is rebuilt in plain numpy and torch.
"""

import hashlib
import json

import numpy as np
import pytest
import torch

from mlx_backend.interface.errors import WeightsError
from mlx_backend.weights.formats import fp_codes
from mlx_backend.weights.formats.quantised import bookkeeping, find_quantised, model_tensors, restore
from mlx_backend.weights.formats.safetensors_file import TensorInfo

FORMATS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "e8m0": torch.float8_e8m0fnu}
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
LAYER = "blocks.0.ffn.0"
ROWS = (np.arange(12, dtype=np.float32).reshape(12, 1) + 1) / 1000


class File:
    """A file's header and tensors; `read_names` keeps what was read."""

    def __init__(self, **tensors):
        self.arrays, self.tensors, self.metadata, self.read_names = {}, {}, {}, []
        for name, (dtype, array) in tensors.items():
            self.add(f"{LAYER}.{name}", dtype, array)

    def add(self, name, dtype, array):
        array = np.asarray(array)
        self.arrays[name] = array
        self.tensors[name] = TensorInfo(dtype, array.shape, array.size * ITEM_BYTES.get(dtype, 1))
        return self

    def says(self, layer=LAYER, **config):
        return self.add(f"{layer}.comfy_quant", "U8", np.frombuffer(json.dumps(config).encode(), np.uint8))

    def read(self, name):
        self.read_names.append(name)
        return self.arrays[name]

    def find(self):
        return find_quantised(self.tensors, self.read, self.metadata)

    def only(self):
        assert [*self.find()] == [f"{LAYER}.weight"]
        return self.find()[f"{LAYER}.weight"]

    def restored(self):
        tensor = self.only()
        weight = restore(tensor, self.read)
        assert (weight.dtype, weight.shape) == (np.float32, tensor.shape)
        return weight


def codes(count, step=37, start=11, modulus=256):
    index = np.arange(count, dtype=np.int64)
    return ((index * step + start + index**2 // 7) % modulus).astype(np.uint8)


def finite(found, mask):
    return np.where(found & mask == mask, 1, found).astype(np.uint8)


def digest(weight):
    return hashlib.sha256(np.ascontiguousarray(weight).tobytes()).hexdigest()[:16]


def e4m3(rows=12, columns=20):
    return finite(codes(rows * columns), 0x7F).reshape(rows, columns)


def scaled(scale=0.0123, weight=None, dtype="F8_E4M3"):
    """Return a file of one fp8 layer as ComfyUI writes it today."""
    weight = e4m3() if weight is None else weight
    file = File(weight=(dtype, weight), weight_scale=("F32", np.array(scale, np.float32)), bias=("F32", np.zeros(12)))
    return file.says(format="float8_e4m3fn" if dtype == "F8_E4M3" else "float8_e5m2")


def old_scaled(prefix=""):
    file = File().add(f"{prefix}{LAYER}.weight", "F8_E4M3", e4m3())
    file.add(f"{prefix}{LAYER}.scale_weight", "F32", np.array(0.0123, np.float32))
    file.add(f"{prefix}{LAYER}.scale_input", "F32", np.ones((), np.float32))
    return file.add(f"{prefix}scaled_fp8", "F8_E4M3", np.zeros(2, np.uint8))


def int8(scale=ROWS, **config):
    weight = codes(12 * 64).reshape(12, 64).view(np.int8)
    return File(weight=("I8", weight), weight_scale=("F32", scale)).says(format="int8_tensorwise", **config)


def mxfp8():
    exponents = codes(256 * 8, 5, 0, 40)
    scale = np.where(exponents == 0, 0, exponents + 107).astype(np.uint8).reshape(256, 8)
    return File(weight=("F8_E4M3", e4m3(144, 160)), weight_scale=("F8_E8M0", scale)).says(format="mxfp8")


def nvfp4():
    return File(
        weight=("U8", codes(144 * 48).reshape(144, 48)),
        weight_scale=("F8_E4M3", codes(256 * 8, 13, 3, 127).reshape(256, 8)),
        weight_scale_2=("F32", np.array(0.0123, np.float32)),
        input_scale=("F32", np.ones(1, np.float32)),
    ).says(format="nvfp4")


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_has_the_value_that_torch_gives_it(name):
    expected = torch.arange(256, dtype=torch.uint8).view(FORMATS[name]).to(torch.float32).numpy()
    found = getattr(fp_codes, f"{name}_values")()
    np.testing.assert_array_equal(found, expected)
    assert np.array_equal(np.signbit(found), np.signbit(expected) & ~np.isnan(expected))  # zeros too


def test_e2m1_has_sixteen_values():
    positive = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    assert np.array_equal(fp_codes.e2m1_values(), [*positive, *-positive])
    assert fp_codes.decode(np.array([[0x1F, 0xA2]], np.uint8), "F4").tolist() == [[0.5, -6.0, -1.0, 1.0]]


def test_scales_may_be_bfloat16_bits():
    wanted = torch.tensor([0.0123, -3.0, 1e30]).to(torch.bfloat16)
    np.testing.assert_array_equal(fp_codes.decode(wanted.view(torch.uint16).numpy(), "BF16"), wanted.float().numpy())


def swizzle(scales):
    """Store block scales in the order of cuBLAS, one by one."""
    stored = np.zeros(fp_codes.padded_scales(*scales.shape), scales.dtype)
    for row, column in np.ndindex(scales.shape):
        tile = row // 128 * (stored.shape[1] // 4) + column // 4
        stored.reshape(-1)[512 * tile + 16 * (row % 32) + 4 * (row % 128 // 32) + column % 4] = scales[row, column]
    return stored


def test_block_scales_are_put_back_in_order():
    scales = 1 + np.arange(200 * 6).reshape(200, 6)
    assert swizzle(scales).shape == (256, 8)
    np.testing.assert_array_equal(fp_codes.unswizzle(swizzle(scales), 200, 6), scales)


@pytest.mark.parametrize("size", [4, 16, 256])
def test_the_rotation_is_symmetric_and_undoes_itself(size):
    matrix = fp_codes.rotation(size).astype(np.float64)
    assert np.array_equal(matrix, matrix.T)
    assert np.array_equal(matrix @ matrix, np.eye(size))
    assert np.array_equal(np.abs(matrix), np.full((size, size), size**-0.5))
    assert np.array_equal(np.sign(matrix[0, :4]), [1, 1, 1, -1])


@pytest.mark.parametrize(
    ("file", "kind", "expected"),
    [
        (scaled(), "fp8", "63d1f5fb04f0e4af"),
        (scaled(np.arange(1, 13)[:, None] / 64), "fp8", "f350c453dbc51008"),
        (scaled(weight=finite(codes(240), 0x7C).reshape(12, 20), dtype="F8_E5M2"), "fp8", "f8aef4278f848f5f"),
        (old_scaled(), "fp8", "63d1f5fb04f0e4af"),
        (int8(np.array([0.0123], np.float32)), "int8", "0835a0ad2b956639"),
        (int8(), "int8", "d71154a73d9a5f7b"),
        (int8(ROWS[:, 0]), "int8", "d71154a73d9a5f7b"),
        (mxfp8(), "mxfp8", "bd07645a19a26790"),
        (nvfp4(), "nvfp4", "ac1e0dd2c5fdcae9"),
    ],
)
def test_a_weight_is_to_the_bit_what_comfy_kitchen_makes_of_it(file, kind, expected):
    assert file.only().kind == kind
    assert digest(file.restored()) == expected


@pytest.mark.parametrize(
    ("size", "expected", "total"),
    [
        (4, [0.010499998927, -0.056500002742, 0.2460000217, 0.5580000281], 306.3570017),
        (16, [0.005749996752, -0.051750011742, 0.2365000248, 0.5040000677], 299.8150002),
        (64, [-0.003500022925, -0.061000011861, 0.2827500403, 0.7800000906], 286.9757515),
    ],
)
def test_a_rotated_weight_is_what_comfy_kitchen_makes_of_it_but_for_rounding(size, expected, total):
    file = int8(convrot=True, convrot_groupsize=size)
    assert (file.only().kind, file.only().rotation) == ("int8_convrot", size)
    weight = file.restored()
    np.testing.assert_allclose(weight.reshape(-1)[[0, 5, 77, -1]], expected, rtol=0, atol=1e-6)
    assert np.abs(weight.astype(np.float64)).sum() == pytest.approx(total, rel=1e-6)
    exact = file.arrays[f"{LAYER}.weight"].reshape(-1, size) @ fp_codes.rotation(size).astype(np.float64)
    np.testing.assert_array_equal(weight, exact.reshape(12, 64).astype(np.float32) * ROWS)


def test_a_rotated_weight_comes_back_within_half_a_step():
    weight = np.random.default_rng(0).normal(size=(8, 512))
    rotated = (weight.reshape(-1, 256) @ fp_codes.rotation(256).T).reshape(8, 512)
    scale = (np.abs(rotated).max(axis=1, keepdims=True) / 127).astype(np.float32)
    file = File(weight=("I8", np.round(rotated / scale).astype(np.int8)), weight_scale=("F32", scale))
    file.says(format="int8_tensorwise", params={"convrot": True})  # 256 unless it says otherwise
    error = (file.restored() - weight).reshape(-1, 256) @ fp_codes.rotation(256)
    assert (np.abs(error).reshape(8, 512) <= 0.5001 * scale).all()


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_scaled_fp8_comes_back_within_its_step(name):
    torch_dtype = FORMATS[name]
    weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    scale = weight.abs().max() / torch.finfo(torch_dtype).max
    stored = (weight / scale).to(torch_dtype)
    found = scaled(scale.numpy(), stored.view(torch.uint8).numpy(), f"F8_{name.upper()}").restored()
    np.testing.assert_array_equal(found, (stored.float() * scale).numpy())
    np.testing.assert_allclose(
        found, weight.numpy(), rtol=torch.finfo(torch_dtype).eps / 2, atol=float(scale) * 2.0**-9
    )


def test_mxfp8_and_nvfp4_come_back_within_their_steps():
    weight = np.random.default_rng(0).normal(size=(128, 64))
    peaks = np.abs(weight.reshape(128, 2, 32)).max(axis=2)
    exponents = np.ceil(np.log2(peaks / 448)).astype(int)
    stored = torch.from_numpy(weight / np.exp2(exponents).repeat(32, 1)).float().to(torch.float8_e4m3fn)
    scale = swizzle((exponents + 127).astype(np.uint8))
    file = File(weight=("F8_E4M3", stored.view(torch.uint8).numpy()), weight_scale=("U8", scale)).says(format="mxfp8")
    np.testing.assert_allclose(file.restored(), weight, rtol=2.0**-4, atol=2.0**-8 * peaks.max() / 448)

    peaks = np.abs(weight.reshape(128, 4, 16)).max(axis=2)
    overall = np.float32(np.abs(weight).max() / (448 * 6))
    scale = torch.from_numpy(peaks / 6 / overall).float().to(torch.float8_e4m3fn)
    steps = scale.double().numpy().repeat(16, 1) * overall
    nearest = np.abs((weight / steps)[..., None] - fp_codes.e2m1_values()).argmin(axis=-1).astype(np.uint8)
    file = File(
        weight=("U8", nearest[:, ::2] << 4 | nearest[:, 1::2]),
        weight_scale=("U8", swizzle(scale.view(torch.uint8).numpy())),
        weight_scale_2=("F32", overall),
    ).says(format="nvfp4")
    np.testing.assert_allclose(file.restored(), fp_codes.e2m1_values()[nearest] * steps, rtol=1e-6)
    assert (np.abs(file.restored() - weight) <= 1.1 * steps).all()


def test_smoothing_factors_enter_the_weight():
    plain, factor = nvfp4().restored(), np.linspace(0.5, 2, 96, dtype=np.float32)
    file = nvfp4().add(f"{LAYER}.pre_quant_scale", "F32", factor)
    np.testing.assert_array_equal(file.restored(), plain * factor)


def test_a_plain_cast_is_used_as_it_is():
    file = File(weight=("F8_E4M3", e4m3()), bias=("F8_E5M2", codes(12)), norm=("F16", np.ones(3, np.float16)))
    found = file.find()
    assert {name: (tensor.kind, tensor.shape) for name, tensor in found.items()} == {
        f"{LAYER}.weight": ("fp8", (12, 20)),
        f"{LAYER}.bias": ("fp8", (12,)),
    }
    np.testing.assert_array_equal(restore(found[f"{LAYER}.weight"], file.read), fp_codes.e4m3_values()[e4m3()])
    np.testing.assert_array_equal(restore(found[f"{LAYER}.bias"], file.read), fp_codes.e5m2_values()[codes(12)])


def test_a_file_that_is_not_quantised_has_nothing_to_find():
    file = File(weight=("BF16", np.zeros((4, 4), np.uint16)), scales=("U32", np.zeros((4, 1), np.uint32)))
    file.add("spiece_model", "U8", np.zeros(9, np.uint8))
    assert file.find() == {}
    assert bookkeeping(file.tensors) == frozenset()


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_an_old_file_of_scaled_fp8_is_known_by_its_header_alone(prefix):
    file = old_scaled(prefix)
    file.add(f"{prefix}head.weight", "BF16", np.zeros((2, 2), np.uint16))
    file.add(f"{prefix}head.scale_weight", "F32", np.ones((), np.float32))
    file.add(f"{prefix}patch_embedding.weight", "F8_E4M3", np.zeros((2, 2, 1, 2, 2), np.uint8))
    found = file.find()
    assert file.read_names == []
    assert {name: tensor.kind for name, tensor in found.items()} == {
        f"{prefix}{LAYER}.weight": "fp8",
        f"{prefix}head.weight": "scaled",
        f"{prefix}patch_embedding.weight": "fp8",
    }
    names = ("scaled_fp8", f"{LAYER}.scale_weight", f"{LAYER}.scale_input", "head.scale_weight")
    assert bookkeeping(file.tensors) == {f"{prefix}{name}" for name in names}
    assert digest(restore(found[f"{prefix}{LAYER}.weight"], file.read)) == "63d1f5fb04f0e4af"


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (12, 1), (12,)])
@pytest.mark.parametrize("ending", ["weight_scale", "scale_weight"])
def test_fp8_with_a_scale_and_no_other_word_is_codes_times_scale(ending, shape, dtype):
    scale = np.linspace(0.5, 2, 12, dtype=np.float32)[: int(np.prod(shape))].reshape(shape)
    file = File(weight=(dtype, e4m3()), input_scale=("F32", np.ones((), np.float32)))
    file.add(f"{LAYER}.{ending}", "F32", scale)
    codes_of = torch.from_numpy(e4m3()).view(FORMATS["e4m3" if dtype == "F8_E4M3" else "e5m2"]).float().numpy()
    np.testing.assert_array_equal(file.restored(), codes_of * scale.reshape(-1, 1))  # one product, rounded once


def quanto(dtype="I8", data=None, scale=ROWS):
    """A file of one layer as optimum-quanto writes it."""
    data = codes(240).reshape(12, 20).view(np.int8) if data is None else data
    file = File(bias=("F32", np.zeros(12))).add(f"{LAYER}.weight._data", dtype, data)
    for name in ("input_scale", "output_scale"):
        file.add(f"{LAYER}.{name}", "F32", np.ones((), np.float32))
    return file.add(f"{LAYER}.weight._scale", "F32", scale)


@pytest.mark.parametrize("shape", [(12, 1), ()])
def test_quantos_weights_are_codes_times_scale(shape):
    scale = ROWS[: int(np.prod(shape))].reshape(shape)
    file = quanto(scale=scale)
    np.testing.assert_array_equal(file.restored(), codes(240).view(np.int8).reshape(12, 20) * scale)
    file = quanto("F8_E4M3", e4m3(), scale)
    values = torch.from_numpy(e4m3()).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(file.restored(), values * scale)
    assert model_tensors(file.tensors).keys() == {f"{LAYER}.weight", f"{LAYER}.bias"}


@pytest.mark.parametrize("named", [LAYER, f"model.diffusion_model.{LAYER}"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_the_metadata_may_name_layers_with_a_prefix_or_without(named, prefix):
    file = File().add(f"{prefix}{LAYER}.weight", "U8", e4m3())
    file.add(f"{prefix}{LAYER}.weight_scale", "F16", np.float16(2))
    layers = {named: {"format": "float8_e4m3fn"}, "blocks.9.elsewhere": {"format": "nvfp4"}}
    file.metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})
    found = file.find()
    assert file.read_names == []
    weight = restore(found[f"{prefix}{LAYER}.weight"], file.read)
    np.testing.assert_array_equal(weight, 2 * fp_codes.e4m3_values()[e4m3()])


def test_only_configurations_are_read_and_all_that_is_not_the_models_is_named():
    file = nvfp4()
    assert set(file.only().parts) == {"weight", "scale", "tensor_scale"}
    assert set(file.read_names) == {f"{LAYER}.comfy_quant"}
    assert bookkeeping(file.tensors) == file.tensors.keys() - {f"{LAYER}.weight"}


def without(file, name):
    del file.tensors[f"{LAYER}.{name}"]
    return file


def wide(values):
    return np.zeros(values, np.float32)


def wide_with_scale():
    return File(weight=("BF16", np.zeros((12, 20), np.uint16)), weight_scale=("F32", ROWS))


def block_scaled():
    return File(weight=("F8_E4M3", e4m3()), weight_scale_inv=("F32", wide((1, 1))))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (scaled().says(format="convrot_w4a4"), "quantised as 'convrot_w4a4', which this program cannot decode"),
        (scaled().says(format="int8_blockwise"), "quantised as 'int8_blockwise'"),
        (scaled().says(format="float8_e4m3fn", convrot=True), "'float8_e4m3fn' with a rotation"),
        (without(scaled(), "weight_scale"), f"its '{LAYER}.weight_scale' is missing"),
        (without(int8(), "weight_scale"), f"its '{LAYER}.weight_scale' is missing"),
        (without(nvfp4(), "weight_scale_2"), f"quantised as nvfp4, but its '{LAYER}.weight_scale_2' is missing"),
        (without(old_scaled(), "scale_weight"), f"'{LAYER}.scale_weight' is missing"),
        (scaled(wide(12)), r"has shape \[12\], expected \[\] or \[1\] or \[1, 1\] or \[12, 1\]"),
        (int8(wide(64)), r"has shape \[64\], expected .* or \[12\]"),
        (nvfp4().add(f"{LAYER}.weight_scale", "U8", wide((144, 6))), r"has shape \[144, 6\], expected \[256, 8\]"),
        (mxfp8().add(f"{LAYER}.weight_scale", "F32", wide((256, 8))), "stored as F32, expected F8_E8M0 or U8"),
        (mxfp8().add(f"{LAYER}.weight", "F8_E4M3", wide((144, 150))), "150 inputs are not whole blocks of 32"),
        (mxfp8().add(f"{LAYER}.weight", "F8_E4M3", wide(32)), "expected two axes"),
        (scaled().add(f"{LAYER}.weight", "F32", wide((12, 20))), "is stored as F32, expected F8_E4M3 or U8"),
        (int8(convrot=True), r"\[12, 64\] it cannot be rotated in groups of 256"),
        (int8(convrot=True, convrot_groupsize=8), "groups of 8, which must be a power of four"),
        (int8(convrot=True, convrot_groupsize="16"), "groups of 16, which must be a power of four"),
        (without(int8(), "comfy_quant"), "stored as I8, but nothing in the file says how"),
        (wide_with_scale(), f"'{LAYER}.weight_scale' is a scale, but nothing in the file says"),
        (block_scaled(), f"'{LAYER}.weight_scale_inv' holds a scale for each block of its weight"),
        (quanto("U8", wide((12, 10))), f"'{LAYER}.weight' is quantised by quanto in 4 or 2 bits"),
        (quanto().add(f"{LAYER}.weight._shift", "F32", ROWS), "by quanto in 4 or 2 bits"),
        (without(quanto(), "weight._scale"), f"its '{LAYER}.weight._scale' is missing"),
        (quanto(scale=wide((3, 4))), r"'blocks.0.ffn.0.weight._scale' has shape \[3, 4\]"),
        (without(quanto(), "weight._data"), f"'{LAYER}.weight._scale' is a scale"),
        (scaled().add(f"{LAYER}.pre_quant_scale", "F32", wide(20)), "pre_quant_scale' is a scale"),
        (without(scaled(), "weight"), f"cannot say how '{LAYER}.weight' is quantised"),
        (File(weight=("F8_E4M3FNUZ", e4m3())), "stored as F8_E4M3FNUZ"),
        (scaled().add(f"{LAYER}.comfy_quant", "U8", codes(9)), "should say in JSON how layers are quantised"),
        (scaled().add(f"{LAYER}.comfy_quant", "U8", wide(1 << 17)), "cannot say how"),
    ],
)
def test_what_cannot_be_decoded_is_refused_in_a_sentence(file, message):
    with pytest.raises(WeightsError, match=message) as refusal:
        file.find()
    assert str(refusal.value).endswith(".")
    assert LAYER in str(refusal.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"layers": []}', json.dumps({"layers": {LAYER: "nvfp4"}})])
def test_metadata_that_says_nothing_is_refused(text):
    file = scaled()
    file.metadata["_quantization_metadata"] = text
    with pytest.raises(WeightsError, match="_quantization_metadata"):
        file.find()
