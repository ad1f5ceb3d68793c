"""What a GPU does, bf16 products between float32 islands, run on the CPU: the same code, other dtypes."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
from support import Golden, generate, golden_file, golden_prompts, golden_scene, golden_settings
from test_lora import folder_with

from mlx_backend.members import member_named
from mlx_backend.models.conditioning import Known
from mlx_backend.models.scail2 import Reference, Scail2Model, Streams
from mlx_backend.models.umt5 import UMT5Encoder
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.weights.checkpoints import components
from mlx_backend.weights.checkpoints.component_file import open_component
from mlx_backend.weights.checkpoints.detect import dit_config, umt5_config
from mlx_backend.weights.checkpoints.load import fit, load_into
from mlx_backend.weights.checkpoints.snapshot import Snapshot


def relative(found, expected) -> float:
    found, expected = np.array(found, np.float64), np.array(expected, np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_bf16_products_stay_near_float32_and_the_stream_stays_float32(snapshot):
    path = snapshot.path("dit")
    source = open_component(path, "dit")
    model = Scail2Model(dit_config(path, source.tensors, snapshot.settings, member_named(source.member)), None)
    fit(model, source, None)
    load_into(model, source, None, lambda: None)
    golden = Golden(golden_file("dit"), 2)
    mask = mx.array(golden("ref_mask"))
    streams = Streams(
        references=(Reference(mx.array(golden("ref")), mask[:, :1]),),
        driving=mx.array(golden("pose")),
        driving_mask=mx.array(golden("driving_mask")),
        replacement=False,
        video_mask=mask[:, 1:],
    )
    seen = []
    block = type(model.blocks[0])

    class Watched(block):
        def __call__(self, chunks, *rest):
            super().__call__(chunks, *rest)
            seen.extend(rows.x.dtype for rows in chunks)

    for layer in model.blocks:
        layer.__class__ = Watched
    context = model.embed_context(mx.array(golden("text")), mx.array(golden("clip"))[0])
    x = mx.array(golden("x"))
    known = Known(mx.array(golden("history_mask"))[:1] > 0, mx.zeros(x.shape))
    out = model(x, 777.0, model.condition(context, x.shape[1:], streams, known), lambda: None)
    assert model.blocks[0].self_attn.q.weight.dtype == mx.bfloat16
    assert set(seen) == {mx.float32}
    assert out.dtype == mx.float32
    # bf16 keeps 8 bits; 2 layers of products of such numbers stay within a few hundredths
    assert 1e-5 < relative(out, golden("out")) < 0.03


def test_the_text_encoder_in_bf16_stays_near_float32(snapshot):
    path = snapshot.path("t5_encoder")
    source = open_component(path, "t5_encoder")
    model = UMT5Encoder(umt5_config(path, source.tensors), None)
    fit(model, source, None)
    load_into(model, source, None, lambda: None)
    golden = Golden(golden_file("text"), 0)
    assert 1e-5 < relative(model(mx.array(golden("ids"))), golden("embedding")) < 0.03


def test_float16_that_overflows_is_left_and_the_run_goes_on(snapshot, tmp_path, listener, monkeypatch):
    """M1 and M2 compute in float16; here the CPU does, with values too large for it."""
    # the same function, but what cross-attention passes on in the first block is large
    tensors = dict(mx.load(str(snapshot.path("dit"))))
    for name in ("v", "v_img"):
        for part in ("weight", "bias"):
            tensors[f"blocks.0.cross_attn.{name}.{part}"] *= 2**18
    tensors["blocks.0.cross_attn.o.weight"] /= 2**18
    large = Snapshot.open(folder_with(tmp_path, tensors))
    settings = replace(golden_settings(1), steps=2)

    def frames(model):
        models = Models.of(ModelStore(model, "auto"))
        return generate(models, golden_prompts(1), golden_scene(1), settings, None, listener)

    def float16_for_the_dit(precision, component):
        return mx.float16 if component == "dit" else mx.float32

    expected = frames(snapshot)
    monkeypatch.setattr(components, "compute_dtype", float16_for_the_dit)
    fits = frames(snapshot)
    assert not listener.warnings
    assert 0 < np.abs(fits - expected).max() < 0.05, "float16 keeps 11 bits"
    goes_on = frames(large)
    assert [message for message in listener.warnings if "float16" in message]
    assert np.abs(goes_on - expected).max() < 0.2, "bf16 keeps 8 bits"


def test_only_what_was_float16_leaves_it(snapshot, monkeypatch):
    monkeypatch.setattr(components, "compute_dtype", lambda precision, component: mx.float16)
    dit = components.load_component(components.fitting(snapshot, "dit", "auto"), lambda: None)
    assert dit.leave_float16()
    assert dit.blocks[0].ffn[0].compute_dtype == dit.patch_embedding.compute_dtype == mx.bfloat16
    assert dit.head.head.compute_dtype == mx.float32
    assert not dit.leave_float16()


def test_products_in_the_dtype_of_the_weights_have_nothing_to_leave(snapshot, monkeypatch):
    monkeypatch.setattr(components, "compute_dtype", lambda precision, component: None)
    assert not components.load_component(components.fitting(snapshot, "dit", "auto"), lambda: None).leave_float16()
