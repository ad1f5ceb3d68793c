"""What a GPU does, bf16 products between float32 islands, run on the CPU: the same code, other dtypes."""

import mlx.core as mx
import numpy as np
from support import Golden, golden_file

from mlx_backend.models.scail2 import Reference, Scail2DiT, Streams
from mlx_backend.models.umt5 import UMT5Encoder
from mlx_backend.weights.component_file import open_component
from mlx_backend.weights.detect import dit_config, umt5_config
from mlx_backend.weights.load import fit, load_into


def relative(found, expected) -> float:
    found, expected = np.array(found, np.float64), np.array(expected, np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_bf16_products_stay_near_float32_and_the_stream_stays_float32(snapshot):
    path = snapshot.path("dit")
    source = open_component(path, "dit")
    model = Scail2DiT(dit_config(path, source.tensors, snapshot.settings), None)
    fit(model, source, None)
    load_into(model, source, None, lambda: None)
    golden = Golden(golden_file("dit"), 2)
    mask = mx.array(golden("ref_mask"))
    streams = Streams(
        references=(Reference(mx.array(golden("ref")), mask[:, :1]),),
        driving=mx.array(golden("pose")),
        driving_mask=mx.array(golden("driving_mask")),
        history_mask=mx.array(golden("history_mask")),
        replacement=False,
        video_mask=mask[:, 1:],
    )
    seen = []
    block = type(model.blocks[0])

    class Watched(block):
        def __call__(self, chunks, *rest):
            super().__call__(chunks, *rest)
            seen.extend(chunk.dtype for chunk in chunks)

    for layer in model.blocks:
        layer.__class__ = Watched
    context = model.embed_context(mx.array(golden("text")), mx.array(golden("clip"))[0])
    out = model(mx.array(golden("x")), 777.0, model.prepare(streams), context, lambda: None)
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
