"""Footage: pictures of a file that are decoded when they are asked for, and the same as those read at once."""

import pickle
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mlx_backend.interface.errors import MediaError
from mlx_backend.media.decode import VideoFile
from mlx_backend.media.footage import Footage, open_footage
from mlx_backend.media.read import read_video
from mlx_backend.media.resize import MASK, PHOTO, fit
from mlx_backend.media.timing import resampling
from mlx_backend.media.write import write_video

av = pytest.importorskip("av")

COUNT = 150  # beyond the frames that are decoded from the start


@pytest.fixture(scope="module", params=["a.mp4", "a.mkv", "a.avi", "folder", "a.npy"])
def clip(request, tmp_path_factory) -> Path:
    """A clip whose frames differ, with B-frames and several key frames where the format has any."""
    path = tmp_path_factory.mktemp("clip") / request.param
    frames = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 6, 3), np.uint8).repeat(12, 1).repeat(12, 2)
    if path.suffix == ".npy":
        np.save(path, frames)
    elif not path.suffix:
        path.mkdir()
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(path / f"{number}.png")
    else:
        with av.open(str(path), "w") as container:
            name = "mjpeg" if path.suffix == ".avi" else "libx264"
            stream = container.add_stream(name, rate=30, options={} if name == "mjpeg" else {"g": "40", "bf": "3"})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuvj420p" if name == "mjpeg" else "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode())
    return path


def read_at_once(path: Path) -> np.ndarray:
    """All frames as uint8, decoded from the start by nothing of ours where it is a video."""
    if path.suffix in ("", ".npy"):
        return read_video(path).frames
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("numbers", [[0], [3, 4, 5], [100, 101, 149], [149, 7, 7, 120], [-1]])
def test_frames_are_those_read_at_once(clip, numbers):
    expected = read_at_once(clip)
    footage = open_footage(clip)
    assert footage.shape == expected.shape == (COUNT, 48, 72, 3)
    np.testing.assert_array_equal(footage[numbers], expected[numbers])
    np.testing.assert_array_equal(footage[90:][numbers[0] % 60], expected[90:][numbers[0] % 60])


@pytest.mark.parametrize("size", [(96, 64), (32, 32), (72, 48)])
def test_fitted_frames_are_those_of_an_array(clip, size):
    """Photos in the steps of eight bits where they are resized, masks with their own colours."""
    expected, footage = read_at_once(clip)[60:80], open_footage(clip)[60:80]
    np.testing.assert_array_equal(np.asarray(footage.fit(*size, MASK)), fit(expected, *size, MASK))
    photos = fit(expected, *size, PHOTO)
    if size != (72, 48):
        photos = (np.clip(photos, 0, 1) * 255).round() / np.float32(255)
    made = footage.fit(*size, PHOTO)
    np.testing.assert_array_equal(np.stack(list(made)), photos)
    np.testing.assert_array_equal(made[[2, 2, 19]], photos[[2, 2, 19]])  # from what was kept


def test_few_pictures_are_kept_and_none_are_sent(clip, monkeypatch):
    monkeypatch.setattr("mlx_backend.media.footage.KEPT_BYTES", 10 * 32 * 32 * 3)
    footage = open_footage(clip).fit(32, 32, PHOTO)
    expected = np.stack(list(footage))
    assert 0 < len(footage.kept) <= 10
    assert len(pickle.dumps(footage)) < 20_000
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(footage))), expected)


def test_pictures_and_floats_are_arrays(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4, 3), np.float32))
    assert not isinstance(open_footage(tmp_path / "a.png"), Footage)
    assert open_footage(tmp_path / "a.npy").shape == (2, 4, 4, 3)


def test_a_video_that_ends_early_is_told(tmp_path):
    """An index may promise frames that no packet has: a few are held, many are damage."""
    write_video(tmp_path / "a.mkv", np.zeros((10, 32, 32, 3), np.float32), 30)
    video = VideoFile.of(tmp_path / "a.mkv")
    step = int(video.moments[-1] - video.moments[-2])

    def promising(count: int) -> VideoFile:
        later = video.moments[-1] + step * np.arange(1, count + 1)
        return replace(video, frames=10 + count, moments=np.concatenate([video.moments, later]))

    assert Footage.of(promising(3))[[12]].shape == (1, 32, 32, 3)
    with pytest.raises(MediaError, match=r"a\.mkv says that it has 50 frames, but only the first 10"):
        np.asarray(Footage.of(promising(40)))


def write_at(path: Path, moments: list[int]) -> None:
    """Write frames, frame n of the grey n, that are shown at these milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number, moment in enumerate(moments):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * number, np.uint8), "rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_variable_rate_is_sampled_by_its_time_stamps(tmp_path, listener, caplog):
    """Five pictures a tenth of a second each, then one of half a second: it stands as long as it is shown."""
    caplog.set_level("INFO", logger="scail2_mlx")
    write_at(tmp_path / "a.mkv", [0, 100, 200, 300, 400, 900, 1000])
    footage = open_footage(tmp_path / "a.mkv").at_rate(10, listener)
    assert footage.numbers[:11].tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 4, 5, 6]
    assert "a.mkv has a variable frame rate" in caplog.text


def test_a_steady_rate_is_sampled_as_images_are(tmp_path, listener):
    write_at(tmp_path / "a.mkv", [round(1000 * n / 30) for n in range(30)])
    footage = open_footage(tmp_path / "a.mkv")
    assert not footage.source.is_variable
    picks = resampling(30, footage.fps, 16).picks
    np.testing.assert_array_equal(footage.at_rate(16, listener).numbers, picks)
    assert footage.at_rate(footage.fps, listener) is footage


class FileVideo:
    """A VIDEO of a file, as ComfyUI's: its path, its trim, and frames for those who want them all."""

    def __init__(self, path: Path, trim: tuple[float, float] = (0.0, 0.0)) -> None:
        self.path, self.trim = path, trim

    def get_stream_source(self) -> str:
        return str(self.path)

    def get_active_trim_window(self) -> tuple[float, float]:
        return self.trim

    def get_components(self) -> None:
        raise AssertionError("the whole video is decoded")


@pytest.fixture
def looked_at(nodes, tmp_path):
    """What the input check shows of a driving video and its mask: the sheet."""
    person = np.zeros((16, 64, 64, 3), np.float32)
    person[:, 16:48, 16:48, 2] = 1
    write_video(tmp_path / "mask.mp4", person, 16)
    write_video(tmp_path / "clip.mp4", np.linspace(0, 1, 16, dtype=np.float32)[:, None, None, None] + 0 * person, 16)

    def look(read):
        driving, mask = (read(tmp_path / name) for name in ("clip.mp4", "mask.mp4"))
        inputs = {"reference_image": torch.zeros(1, 64, 64, 3), "driving_video": driving, "driving_mask": mask}
        settings = {"mode": "animation", "width": 64, "height": 64, "driving_fps": 16.0}
        return nodes["Scail2InputCheck"](inputs | settings)

    return look


def test_a_video_of_a_file_is_decoded_here_and_shows_what_its_images_do(looked_at):
    images, report = looked_at(lambda path: torch.from_numpy(read_video(path).frames))
    video, told = looked_at(FileVideo)
    assert told == report
    assert torch.equal(video, images)


def test_a_trimmed_video_is_its_part(looked_at):
    """From half a second on, a quarter of a second: frames 8 to 11 of 16."""
    images, _ = looked_at(lambda path: torch.from_numpy(read_video(path, 8, 4).frames))
    video, _ = looked_at(lambda path: FileVideo(path, (0.5, 0.25)))
    assert torch.equal(video, images)


def test_a_video_in_memory_is_picked_by_its_rate(looked_at):
    class Made:
        def __init__(self, path: Path) -> None:
            self.path = path

        def get_components(self) -> SimpleNamespace:
            frames = torch.from_numpy(read_video(self.path).frames)
            return SimpleNamespace(images=frames.repeat_interleave(2, 0), frame_rate=Fraction(32))

    images, report = looked_at(lambda path: torch.from_numpy(read_video(path).frames))
    video, told = looked_at(Made)
    assert torch.equal(video, images)
    assert told == report


def test_a_frame_that_cannot_become_pixels_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    write_video(path, np.zeros((3, 32, 32, 3), np.float32), 16)
    clip = open_footage(path)

    def failing(frame, tone):
        raise av.error.BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("mlx_backend.media.decode._upright", failing)
    with pytest.raises(MediaError, match=r"Frame 0 of the video .*a\.mp4 cannot be turned into pixels"):
        list(clip)
