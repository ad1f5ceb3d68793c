"""HDR and wide-gamut clips: white is white, greys and hues are where they were, and SDR is untouched."""

from pathlib import Path

import numpy as np
import pytest

from mlx_backend.media.decode import VideoFile
from mlx_backend.media.footage import Footage
from mlx_backend.media.tone import BT2020, HLG, PQ, WHITE, Signal, ToneMap, hlg_to_scene, nits_to_pq, pq_to_nits

av = pytest.importorskip("av")

BT709 = 1
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def levels(signal: np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(signal) * 65535).astype(np.uint16)


def shown(signal: Signal, values: list[float]) -> np.ndarray:
    """What greys of a signal become: one number each, as the channels are equal."""
    made = ToneMap.of(signal).pictures(levels(np.repeat(np.array(values)[:, None], 3, axis=1)))
    # The rows of the matrix sum to 1 within 1e-4, its published digits.
    assert np.ptp(made.astype(int), axis=1).max() <= 1
    return made[:, 1].astype(int)


def test_published_points_of_the_curves():
    """BT.2408: 203 nits are 58 % of PQ, and 75 % of HLG on a screen of 1000 nits; 100 nits are 51 % of PQ."""
    assert float(nits_to_pq(203)) == pytest.approx(0.58, abs=0.005)
    assert float(nits_to_pq(100)) == pytest.approx(0.508, abs=0.001)
    assert 1000 * hlg_to_scene(np.array(0.75)) ** 1.2 == pytest.approx(203, abs=1)
    nits = np.array([0.01, 1, 203, 4000, 10000.0])
    np.testing.assert_allclose(pq_to_nits(nits_to_pq(nits)), nits, rtol=1e-9)


@pytest.mark.parametrize("signal", [Signal(PQ, BT2020), Signal(HLG, BT2020), Signal(PQ, BT709), Signal(PQ, 9, 4000.0)])
def test_black_is_black_white_is_bright_and_nothing_turns_round(signal):
    steps = np.linspace(0, float(nits_to_pq(signal.peak)) if signal.transfer == PQ else 1, 200)
    made = shown(signal, list(steps))
    assert made[0] == 0 and made[-1] == 255
    assert (np.diff(made) >= 0).all()
    white = 0.75 if signal.transfer == HLG else float(nits_to_pq(203))
    assert shown(signal, [white])[0] >= (220 if signal.peak == 1000 else 200)  # more highlights need more room


def test_what_is_darker_than_the_knee_keeps_its_light():
    """A grey of 18 % of white is that on an SDR screen too."""
    for signal, level in ((Signal(PQ, BT2020), float(nits_to_pq(0.18 * WHITE))), (Signal(HLG, BT2020), None)):
        if level is None:
            scene = (0.18 * WHITE / 1000) ** (1 / 1.2)
            level = np.sqrt(3 * scene)
        assert abs(shown(signal, [level])[0] - 255 * 0.18 ** (1 / 2.4)) <= 1


@pytest.mark.parametrize("colour", [(0.5, 0.1, 0.1), (0.1, 0.4, 0.2), (0.05, 0.05, 0.5)])
def test_colours_of_bt2020_become_those_of_bt709(colour):
    wide = TO_BT2020 @ np.array(colour)
    sdr = ToneMap.of(Signal(14, BT2020)).pictures(levels(wide ** (1 / 2.4))[None])[0]
    np.testing.assert_allclose(sdr, 255 * np.array(colour) ** (1 / 2.4), atol=1.5)
    hdr = ToneMap.of(Signal(PQ, BT2020)).pictures(levels(nits_to_pq(0.3 * WHITE * wide))[None])[0]
    np.testing.assert_allclose(hdr, 255 * (0.3 * np.array(colour)) ** (1 / 2.4), atol=1.5)


def write(path: Path, grey: int, transfer: int, primaries: int, encoder: str = "libx265") -> None:
    """Write three frames of a grey of ten bits, limited range, tagged as phones tag them."""
    try:
        av.Codec(encoder, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this PyAV has no {encoder}")
    with av.open(str(path), "w") as container:
        quiet = {"x265-params": "log-level=error"} if encoder == "libx265" else {}
        stream = container.add_stream(encoder, rate=30, options=quiet)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = transfer, primaries
        context.colorspace, context.color_range = (9 if primaries == BT2020 else 1), 1
        for number in range(3):
            frame = av.VideoFrame(64, 64, "yuv420p10le")
            for plane, value in zip(frame.planes, (grey, 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(("transfer", "signal"), [(HLG, 0.75), (PQ, 0.58)])
def test_white_of_a_phone_clip_is_no_grey(tmp_path, listener, caplog, transfer, signal):
    caplog.set_level("INFO", logger="scail2_mlx")
    write(tmp_path / "a.mp4", round(64 + 876 * signal), transfer, BT2020)
    video = VideoFile.of(tmp_path / "a.mp4")
    assert (video.signal.transfer, video.signal.primaries) == (transfer, BT2020)
    (picture,) = video.pictures(np.array([1]))
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - shown(video.signal, [signal])[0]).max() <= 2
    assert picture.min() >= 220
    Footage.of(video).at_rate(30, listener)
    assert "a.mp4 is HDR" in caplog.text and "BT.2390" in caplog.text


def test_ten_bits_of_sdr_stay_as_they_were(tmp_path, listener, caplog):
    caplog.set_level("INFO", logger="scail2_mlx")
    write(tmp_path / "a.mp4", 500, BT709, BT709)
    with av.open(str(tmp_path / "a.mp4")) as container:
        expected = next(container.decode(video=0)).to_ndarray(format="rgb24")
    video = VideoFile.of(tmp_path / "a.mp4")
    np.testing.assert_array_equal(next(video.pictures(np.array([0]))), expected)
    Footage.of(video).at_rate(30, listener)
    assert "HDR" not in caplog.text
