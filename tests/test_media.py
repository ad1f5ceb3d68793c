"""Reading and writing of pictures, videos, folders and arrays, and the contact sheet."""

import os
import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_backend.interface.errors import MediaError
from mlx_backend.media.contact_sheet import contact_sheet, side_by_side
from mlx_backend.media.read import read_video
from mlx_backend.media.video import to_uint8
from mlx_backend.media.write import check_output, write_video

av = pytest.importorskip("av")

RED, GREEN, BLUE, WHITE = (220, 40, 30), (30, 200, 60), (30, 60, 210), (240, 240, 240)


def quarters(height: int = 64, width: int = 96) -> np.ndarray:
    """A frame, uint8 [H, W, 3], that shows how it was turned: red, green / blue, white."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2] = RED
    frame[: height // 2, width // 2 :] = GREEN
    frame[height // 2 :, : width // 2] = BLUE
    frame[height // 2 :, width // 2 :] = WHITE
    return frame


def ramp(count: int, height: int = 32, width: int = 64) -> np.ndarray:
    """Frames, float32 [F, H, W, 3], each of one grey: frame i is i / 16."""
    greys = np.arange(count, dtype=np.float32) / 16
    return np.broadcast_to(greys[:, None, None, None], (count, height, width, 3)).copy()


def greys(frames: np.ndarray) -> list[int]:
    return np.rint(frames.mean(axis=(1, 2, 3)) * 16).astype(int).tolist()


def encode(path: Path, frames: list[np.ndarray], codec: str = "mjpeg", pixels: str = "yuvj420p") -> None:
    """Writes uint8 frames, of any sizes, as packets of one video track."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for index, frame in enumerate(frames):
            context = av.CodecContext.create(codec, "w")
            context.height, context.width = frame.shape[:2]
            context.pix_fmt, context.time_base = pixels, Fraction(1, 25)
            picture = av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format=pixels)
            for packet in [*context.encode(picture), *context.encode()]:
                packet.pts = packet.dts = index
                packet.stream = stream
                container.mux(packet)


# Reading pictures


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_picture_is_read_exactly(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(quarters()).save(path)
    clip = read_video(path)
    assert clip.fps is None
    assert clip.frames.dtype == np.float32
    assert clip.frames.shape == (1, 64, 96, 3)
    np.testing.assert_array_equal(to_uint8(clip.frames[0]), quarters())


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy_picture_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(quarters()).save(path, quality=95)
    assert np.abs(read_video(path).frames[0, 10, 10] * 255 - RED).max() < 8


@pytest.mark.parametrize(
    ("orientation", "turns", "mirror"), [(3, 2, False), (6, -1, False), (8, 1, False), (2, 0, True)]
)
def test_exif_orientation(tmp_path, orientation, turns, mirror):
    image = Image.fromarray(quarters())
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    expected = np.rot90(quarters(), turns)
    np.testing.assert_array_equal(
        to_uint8(read_video(tmp_path / "a.png").frames[0]), expected[:, ::-1] if mirror else expected
    )


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey(tmp_path, suffix):
    values = np.array([[0, 1, 32768], [40000, 65534, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    frames = read_video(tmp_path / f"a{suffix}").frames
    assert frames.shape == (1, 2, 3, 3)
    np.testing.assert_allclose(frames[0, ..., 1], values / 65535, rtol=1e-6)


@pytest.mark.parametrize("values", [np.full((2, 2), 70000, np.int32), np.full((2, 2), 0.5, np.float32)])
def test_32_bit_picture_is_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match=r"a\.tif has 32-bit pixels; convert it"):
        read_video(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "1", "P", "PA", "CMYK"])
def test_modes_become_rgb(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (255, 255, 255, 0)).convert("RGB" if mode == "CMYK" else "RGBA")
    suffix = ".tif" if mode in ("CMYK", "PA") else ".png"
    path = tmp_path / f"a{suffix}"
    (image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)).save(path)
    frames = read_video(path).frames
    assert frames.shape == (1, 4, 4, 3)
    assert frames.min() == 1.0


@pytest.mark.filterwarnings("error")
def test_palette_with_transparency_keeps_its_colours(tmp_path):
    image = Image.fromarray(quarters()).quantize(4)
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255, 255]))
    np.testing.assert_array_equal(to_uint8(read_video(tmp_path / "a.png").frames[0]), quarters())


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animation_gives_its_frames(tmp_path, suffix):
    images = [Image.fromarray(frame) for frame in to_uint8(ramp(5))]
    path = tmp_path / f"a{suffix}"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100)
    clip = read_video(path)
    assert clip.fps is None
    assert greys(clip.frames) == [0, 1, 2, 3, 4]
    assert greys(read_video(path, 2, 2).frames) == [2, 3]


def test_only_the_first_page_of_a_tiff(tmp_path):
    pages = [Image.new("L", (4, 4)), Image.new("L", (2, 2))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert read_video(tmp_path / "a.tif").frames.shape == (1, 4, 4, 3)


def test_damaged_pictures(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"a\.png is not a picture.*save it anew"):
        read_video(tmp_path / "a.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "b.png")
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match=r"b\.png cannot be read \(.*truncated"):
        read_video(tmp_path / "b.png")


# Reading paths and windows


def test_missing_and_unknown(tmp_path):
    with pytest.raises(MediaError, match=r"no file or folder .*gone\.mp4"):
        read_video(tmp_path / "gone.mp4")
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(MediaError, match=r"a\.txt has the extension '\.txt'.*\.png.*\.mp4.*\.npy.*folder"):
        read_video(tmp_path / "a.txt")


@pytest.mark.parametrize(("start", "limit"), [(-1, None), (0, 0), (0, -3)])
def test_impossible_window(tmp_path, start, limit):
    with pytest.raises(MediaError, match="start must be 0 or more"):
        read_video(tmp_path, start, limit)


def test_start_after_the_end(tmp_path):
    np.save(tmp_path / "a.npy", ramp(3))
    write_video(tmp_path / "a.mp4", ramp(3), 24)
    write_video(tmp_path / "a", ramp(3), 24)
    write_video(tmp_path / "a.png", ramp(1), 24)
    for name in ("a.npy", "a.mp4", "a"):
        with pytest.raises(MediaError, match=f"{name} has 3 frames, so .* from frame 3 on"):
            read_video(tmp_path / name, 3)
    with pytest.raises(MediaError, match="has 1 frame, so .* from frame 1 on"):
        read_video(tmp_path / "a.png", 1)


# Reading folders


def test_folder_is_sorted_naturally(tmp_path):
    names = ["frame_0.png", "frame_1.png", "Frame_2.png", "frame_10.png", "frame_011.png"]
    for name, frame in zip(names, to_uint8(ramp(5)), strict=True):
        Image.fromarray(frame).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame_1.png").write_bytes(b"left behind by macOS")
    assert greys(read_video(tmp_path).frames) == [0, 1, 2, 3, 4]
    assert greys(read_video(tmp_path, 1, 3).frames) == [1, 2, 3]
    assert greys(read_video(tmp_path, 3, 30).frames) == [3, 4]


def test_folder_of_different_sizes(tmp_path):
    Image.new("RGB", (4, 6)).save(tmp_path / "a1.png")
    Image.new("RGB", (4, 6)).save(tmp_path / "a2.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "a10.png")
    with pytest.raises(MediaError, match=r"differ in size: a1\.png is 4x6 and a10\.png is 8x6"):
        read_video(tmp_path)


def test_folder_without_pictures(tmp_path):
    with pytest.raises(MediaError, match=r"is empty; put the frames in it"):
        read_video(tmp_path)
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(MediaError, match=r"has 1 entries but no pictures"):
        read_video(tmp_path)


# Reading arrays


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", ">f4"])
def test_array(tmp_path, dtype):
    array = to_uint8(ramp(4)) if dtype == "uint8" else ramp(4).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    clip = read_video(tmp_path / "a.npy", 1, 2)
    assert clip.fps is None
    assert clip.frames.dtype == np.float32 and clip.frames.dtype.isnative
    assert greys(clip.frames) == [1, 2]
    assert greys(read_video(tmp_path / "a.npy").frames) == [0, 1, 2, 3]


def test_array_of_one_frame_and_values_as_they_are(tmp_path):
    array = np.array([[[np.nan, -2.0, 7.0]]], np.float32)
    np.save(tmp_path / "a.npy", array)
    frames = read_video(tmp_path / "a.npy").frames
    assert frames.shape == (1, 1, 1, 3)
    np.testing.assert_array_equal(frames[0], array)


def test_uint8_array_survives_both_ways(tmp_path):
    values = np.arange(256, dtype=np.uint8)
    np.save(tmp_path / "a.npy", np.repeat(values[:, None], 3, axis=1)[None])
    np.testing.assert_array_equal(to_uint8(read_video(tmp_path / "a.npy").frames)[0, 0, :, 0], values)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((2, 4, 4, 4), np.float32), r"float32 of shape \[2, 4, 4, 4\]"),
        (np.zeros((4, 4), np.float32), r"float32 of shape \[4, 4\]"),
        (np.zeros((2, 4, 4, 3), np.int64), r"int64 of shape \[2, 4, 4, 3\]"),
        (np.zeros((2, 4, 4, 3), bool), r"bool of shape \[2, 4, 4, 3\]"),
    ],
)
def test_array_of_another_kind(tmp_path, array, found):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(MediaError, match=rf"a\.npy holds {found}; allowed is uint8 .*\[F, H, W, 3\]"):
        read_video(tmp_path / "a.npy")


def test_array_that_is_none(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("not an array")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x06\x00{'a':(")
    np.save(tmp_path / "cut.npy", ramp(2))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:500])
    for name in ("objects", "text", "empty", "header", "cut"):
        with pytest.raises(MediaError, match=rf"{name}\.npy is not a plain NumPy array"):
            read_video(tmp_path / f"{name}.npy")
    with (tmp_path / "zip.npy").open("wb") as file:
        np.savez(file, a=ramp(1))
    with pytest.raises(MediaError, match=r"zip\.npy holds an archive"):
        read_video(tmp_path / "zip.npy")


# Reading videos

ONE = 0x10000


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Overwrites the matrix in the track header of an MP4 file."""
    data = bytearray(path.read_bytes())
    # Type 4, version and flags 4, times, id and duration 20, reserved 8, layer, group, volume 8.
    at = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36]) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),  # a phone held upright: a quarter clockwise
        ((0, -1, 1, 0), lambda frame: np.rot90(frame, 1)),
        ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
        ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
        ((1, 0, 0, -1), lambda frame: frame[::-1]),
        ((0, 1, 1, 0), lambda frame: frame.swapaxes(0, 1)),
    ],
)
def test_rotation_of_a_video(tmp_path, matrix, turned):
    path = tmp_path / "a.mp4"
    write_video(path, quarters()[None].astype(np.float32) / 255, 24)
    set_matrix(path, *matrix)
    frame = read_video(path).frames[0] * 255
    expected = turned(quarters()).astype(np.float32)
    assert frame.shape == expected.shape
    for y in (0.25, 0.75):
        for x in (0.25, 0.75):
            at = int(y * frame.shape[0]), int(x * frame.shape[1])
            assert np.abs(frame[at] - expected[at]).max() < 6


def test_rotation_as_pyav_writes_it(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.set_display_rotation(90)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), "rgb24")))
        container.mux(stream.encode())
    frame = read_video(path).frames[0] * 255
    assert frame.shape == (96, 64, 3)
    assert np.abs(frame[24, 16] - GREEN).max() < 6


def test_window_of_a_video(tmp_path):
    write_video(tmp_path / "a.mp4", ramp(10), 24)
    assert greys(read_video(tmp_path / "a.mp4", 3, 4).frames) == [3, 4, 5, 6]
    assert greys(read_video(tmp_path / "a.mp4", 8, 4).frames) == [8, 9]


def test_full_range_video(tmp_path):
    encode(tmp_path / "a.avi", [quarters()])
    clip = read_video(tmp_path / "a.avi")
    assert clip.fps == 25
    assert np.abs(clip.frames[0, 10, 80] * 255 - GREEN).max() < 10


def test_damaged_videos(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match=r"text\.mp4 cannot be decoded \(Invalid data"):
        read_video(tmp_path / "text.mp4")
    noise = np.random.default_rng(0).random((8, 64, 64, 3), np.float32)
    write_video(tmp_path / "cut.mp4", noise, 24)
    data = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(MediaError, match=r"cut\.mp4 is cut off"):
        read_video(tmp_path / "cut.mp4")


def test_video_without_frames(tmp_path):
    write_video(tmp_path / "a.mkv", ramp(2), 24)
    data = (tmp_path / "a.mkv").read_bytes()
    cluster = data.index(b"\x1f\x43\xb6\x75")
    (tmp_path / "a.mkv").write_bytes(data[: cluster + 16])
    with pytest.raises(MediaError, match=r"a\.mkv (holds no frame that|cannot) "):
        read_video(tmp_path / "a.mkv")


def test_video_of_an_unknown_codec(tmp_path):
    write_video(tmp_path / "a.mkv", ramp(2), 24)
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_NOBODYS/CODEC"))
    with pytest.raises(MediaError, match=r"a\.mkv .*cannot be decoded"):
        read_video(tmp_path / "a.mkv")


def test_sound_only(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match="has no video track"):
        read_video(tmp_path / "a.mkv")


def test_sound_with_a_cover_picture(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt = 64, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        track = container.add_stream("aac", rate=8000)
        container.mux(cover.encode(av.VideoFrame.from_ndarray(quarters(), "rgb24")))
        container.mux(cover.encode())
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(track.encode(sound))
        container.mux(track.encode())
    with pytest.raises(MediaError, match="has no video track"):
        read_video(tmp_path / "a.mp4")


def test_video_that_changes_its_size(tmp_path):
    encode(tmp_path / "a.avi", [quarters(64, 96), quarters(64, 96), quarters(32, 48)])
    with pytest.raises(MediaError, match="changes its size from 96x64 to 48x32 at frame 2"):
        read_video(tmp_path / "a.avi")


def test_without_pyav(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", ramp(1), 24)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MediaError, match=r"Reading .*a\.mp4 needs PyAV: pip install av"):
        read_video(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match=r"Writing .*b\.mp4 needs PyAV: pip install av"):
        check_output(tmp_path / "b.mp4")
    write_video(tmp_path / "a.png", ramp(1), 24)
    assert read_video(tmp_path / "a.png").frames.shape == (1, 32, 64, 3)


# Writing


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".MP4"])
def test_video_round_trip(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    frames = np.repeat(quarters()[None], 5, axis=0).astype(np.float32) / 255
    write_video(path, frames, 24)
    clip = read_video(path)
    assert clip.fps == 24
    assert clip.frames.shape == frames.shape
    for y, x in ((16, 24), (16, 72), (48, 24), (48, 72)):
        assert np.abs(clip.frames[:, y, x] - frames[:, y, x]).max() < 6 / 255
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_video_is_tagged(tmp_path):
    write_video(tmp_path / "a.mp4", ramp(2), 24)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.colorspace, stream.color_primaries, stream.color_trc, stream.color_range) == (
            1,
            1,
            1,
            1,
        )


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (29.97, Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (16, Fraction(16)),
        (30.0, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (np.float32(24), Fraction(24)),
    ],
)
def test_rates(tmp_path, fps, rate):
    write_video(tmp_path / "a.mp4", ramp(3), fps)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == rate
    assert read_video(tmp_path / "a.mp4").fps == pytest.approx(float(rate))


@pytest.mark.parametrize("fps", [0, -24, float("nan"), float("inf"), 1e-9])
def test_impossible_rates(tmp_path, fps):
    with pytest.raises(MediaError, match="frames per second"):
        write_video(tmp_path / "a.mp4", ramp(2), fps)


@pytest.mark.parametrize(("suffix", "error"), [(".png", 0), (".webp", 0), (".jpg", 8), (".jpeg", 8)])
def test_picture_round_trip(tmp_path, suffix, error):
    path = tmp_path / f"a{suffix}"
    write_video(path, quarters()[None].astype(np.float32) / 255, 24)
    written = to_uint8(read_video(path).frames[0]).astype(int)
    assert np.abs(written - quarters())[[16, 16, 48, 48], [24, 72, 24, 72]].max() <= error


def test_pixels_are_clipped_and_rounded(tmp_path):
    frames = np.array([-1.0, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 7.0], np.float32)
    frames = np.repeat(frames[None, None, :, None], 3, axis=3)
    write_video(tmp_path / "a.png", frames, 24)
    assert np.asarray(Image.open(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


def test_array_round_trip_is_exact(tmp_path):
    frames = np.random.default_rng(0).normal(size=(3, 5, 7, 3)).astype(np.float32)
    frames[0, 0, 0] = np.nan
    write_video(tmp_path / "a.npy", frames, 24)
    np.testing.assert_array_equal(read_video(tmp_path / "a.npy").frames, frames)
    write_video(tmp_path / "a.npy", frames.astype(np.float64), 24)
    assert np.load(tmp_path / "a.npy").dtype == np.float32


def test_folder_round_trip(tmp_path):
    path = tmp_path / "frames"
    write_video(path, ramp(11), 24)
    assert sorted(entry.name for entry in path.iterdir())[::10] == ["frame_00001.png", "frame_00011.png"]
    assert greys(read_video(path).frames) == list(range(11))
    write_video(path, ramp(2), 24)
    assert greys(read_video(path).frames) == [0, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["frames"]


def test_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(MediaError, match=r"holds mine\.png, .*choose a new folder"):
        write_video(tmp_path, ramp(1), 24)
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "frames"])
def test_failure_leaves_the_old_clip(tmp_path, name):
    path = tmp_path / name
    write_video(path, ramp(2), 24)
    broken = ramp(4)
    broken[3, 0, 0, 0] = np.nan
    with pytest.raises(MediaError, match=r"frame 3 holds values that are not numbers"):
        write_video(path, broken, 24)
    assert greys(read_video(path).frames) == [0, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.mp4", "a.npy", "a.png", "frames"])
def test_failing_rename_leaves_the_old_clip(tmp_path, monkeypatch, name):
    path = tmp_path / name
    write_video(path, ramp(1), 24)
    rename = Path.replace

    def fail(source, target):
        if source.name.startswith(".partial"):
            raise OSError(28, "No space left on device")
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(MediaError, match=r"could not be written \(No space left on device\); .*untouched"):
        write_video(path, ramp(2)[1:], 24)
    assert greys(read_video(path).frames) == [0]
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_stopping_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", ramp(2), 24)
    assert not list(tmp_path.iterdir())


def test_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "a.png").symlink_to(tmp_path / "real" / "b.png")
    write_video(tmp_path / "a.png", ramp(1), 24)
    assert (tmp_path / "a.png").is_symlink()
    assert (tmp_path / "real" / "b.png").is_file()


@pytest.mark.parametrize(
    ("name", "frames", "match"),
    [
        (
            "a.png",
            ramp(2),
            r"one picture, but the clip has 2 frames; \.mp4 \.mov \.mkv, \.npy or a path without",
        ),
        ("a.mp4", ramp(2, 31, 64), r"64x31.*even width and height"),
        ("a.mp4", ramp(2, 32, 63), r"63x32.*even width and height"),
        ("a.npy", ramp(2)[0], r"from float32 of shape \[32, 64, 3\]; allowed are floats"),
        ("a.npy", ramp(2)[:0], r"shape \[0, 32, 64, 3\].*at least one frame"),
        ("a.npy", to_uint8(ramp(2)), r"from uint8 of shape"),
        ("a.npy", ramp(2)[..., :1], r"shape \[2, 32, 64, 1\]"),
    ],
)
def test_frames_that_do_not_fit(tmp_path, name, frames, match):
    with pytest.raises(MediaError, match=match):
        write_video(tmp_path / name, frames, 24)
    assert not list(tmp_path.iterdir())


def test_check_output(tmp_path, monkeypatch):
    for name in ("a.mp4", "a.png", "a.npy", "a", "A.MOV"):
        check_output(tmp_path / name)
    assert not list(tmp_path.iterdir())
    with pytest.raises(MediaError, match=r"extension '\.txt', which cannot be written; allowed are \.mp4"):
        check_output(tmp_path / "a.txt")
    with pytest.raises(MediaError, match="the folder .*gone does not exist; create it"):
        check_output(tmp_path / "gone" / "a.mp4")
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(MediaError, match="is a folder, so no file"):
        check_output(tmp_path / "b.mp4")
    (tmp_path / "b").write_text("text")
    with pytest.raises(MediaError, match="is a file, so no folder"):
        check_output(tmp_path / "b")
    monkeypatch.setattr(av, "codecs_available", set())
    with pytest.raises(MediaError, match="lacks the H.264 encoder libx264"):
        check_output(tmp_path / "a.mp4")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(MediaError, match="is not writable"):
        check_output(tmp_path / "a.mp4")


# Contact sheet


def test_contact_sheet():
    rows = [("Reference", ramp(1, 32, 32)), ("Driving video", ramp(13)), ("Result", to_uint8(ramp(2)))]
    sheet = contact_sheet(rows, columns=4, height=40)
    assert sheet.dtype == np.uint8
    # 4 frames of 80 pixels, 3 gaps of 6, margins of 12; rows of 26 for the label and 40 for the frames.
    assert sheet.shape == (12 + 3 * (26 + 40 + 12), 12 + 4 * 80 + 3 * 6 + 12, 3)
    assert sheet[0, 0].min() > 235
    middle = 12 + 1 * (26 + 40 + 12) + 26 + 20
    shown = [int(sheet[middle, 12 + 40 + column * 86, 0]) for column in range(4)]
    assert shown == [int(to_uint8(ramp(13))[index, 0, 0, 0]) for index in (0, 4, 8, 12)]
    # One frame in the first row, two in the last; paper beside them.
    assert (sheet[12 + 26 + 20, 12 + 40 + 6 :] == sheet[0, 0]).all()
    assert (sheet[-32, 12 + 2 * 86 :] == sheet[0, 0]).all()
    # Each row has its label.
    for row in range(3):
        top = 12 + row * 78
        assert sheet[top : top + 24].min() < 120


def test_contact_sheet_is_as_wide_as_its_longest_label():
    narrow = contact_sheet([("a", ramp(1, 8, 8))], height=8)
    wide = contact_sheet([("a long label that must not be cut off", ramp(1, 8, 8))], height=8)
    assert wide.shape[0] == narrow.shape[0]
    assert wide.shape[1] > 200
    assert (wide[:, -10:] == wide[0, 0]).all()


def test_contact_sheet_refuses():
    with pytest.raises(MediaError, match="0 rows"):
        contact_sheet([])
    with pytest.raises(MediaError, match="0 columns"):
        contact_sheet([("a", ramp(1))], columns=0)
    with pytest.raises(MediaError, match=r"row 'a' .*\[32, 64, 3\]; allowed is \[F, H, W, 3\]"):
        contact_sheet([("a", ramp(1)[0])])


def test_side_by_side():
    """As long as the longest clip; the last frame of a shorter one stays."""
    ramp = np.linspace(0, 1, 5)[:, None, None, None] * np.ones((5, 20, 30, 3))
    clips = [("still", np.full((1, 20, 20, 3), 0.5)), ("moving", ramp), ("short", ramp[:2])]
    made = side_by_side(clips, height=40)
    assert made.dtype == np.uint8
    assert made.shape[0] == 5
    assert made.shape[1] % 2 == made.shape[2] % 2 == 0  # as videos need it
    middle = 12 + 26 + 20  # margin, label, half the picture
    still, moving, short = (made[:, middle, x].mean(axis=-1) for x in (12 + 20, 64 + 12 + 30, 64 + 84 + 12 + 30))
    assert np.ptp(still) == 0 and abs(still[0] - 127.5) <= 1
    assert np.abs(moving - np.linspace(0, 255, 5)).max() <= 1
    assert np.abs(short - np.array([0, 1, 1, 1, 1]) * 255 / 4).max() <= 1
    for clips in ([], [("nothing", np.zeros((0, 4, 4, 3)))]):
        with pytest.raises(MediaError, match="no frame to show"):
            side_by_side(clips)
