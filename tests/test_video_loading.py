"""Load Video: what of a file is wanted becomes pixels, when it is wanted."""

import importlib
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from demo.pack import load_pack
from mlx_backend.media.decode import VideoFile
from mlx_backend.media.footage import Footage
from mlx_backend.media.read import read_video
from mlx_backend.media.resize import PHOTO, fit
from mlx_backend.media.timing import resampling
from mlx_backend.media.write import write_video
from mlx_backend.members.scail2.checks import tell_surplus

av = pytest.importorskip("av")

FRAMES, WIDTH, HEIGHT, FPS = 24, 64, 32, 24
RATE = 8000  # of the sound: a tone that begins with the sixth frame
IMAGES, FIRST, MASK, RATE_OUT, AUDIO, VIDEO = range(6)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A second of pictures that all differ, with sound in its last three quarters."""
    path = tmp_path_factory.mktemp("clip") / "a.mkv"
    frames = np.random.default_rng(1).integers(0, 256, (FRAMES, HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"bf": "2"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        for pixels in frames.repeat(8, 1).repeat(8, 2):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(video.encode())
        samples = np.zeros((1, 2 * RATE), np.int16)  # the two channels in turn
        samples[:, 2 * RATE // 4 :: 2] = 16384
        for start in range(0, RATE, 1000):
            frame = av.AudioFrame.from_ndarray(samples[:, 2 * start : 2 * start + 2000], "s16", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


@pytest.fixture
def load(nodes, clip):
    def loaded(**changes):
        given = {"start_frame": 0, "max_frames": 0, "target_fps": 0.0, "width": 0, "height": 0}
        return nodes["Scail2LoadVideo"]({"file": str(clip)} | given | changes)

    return loaded


def test_a_whole_file_is_what_reading_it_at_once_gives(load, clip):
    images, first, mask, fps, audio, video = load()
    expected = read_video(clip).frames
    np.testing.assert_array_equal(images.numpy(), expected)
    np.testing.assert_array_equal(first.numpy(), expected[:1])
    np.testing.assert_array_equal(mask.numpy(), expected.max(-1))
    assert fps == FPS
    assert audio["sample_rate"] == RATE
    assert (video.get_dimensions(), video.get_frame_count()) == ((WIDTH, HEIGHT), FRAMES)


def test_range_and_size_are_counted_at_the_target_rate(load, clip):
    """24 pictures a second become 16; of those six from the fourth on, resized and cropped as the sampler does."""
    images, first, _, fps, audio, video = load(start_frame=4, max_frames=6, target_fps=16.0, width=32, height=32)
    picks = resampling(FRAMES, FPS, 16).picks[4:10]
    expected = fit(read_video(clip).frames[picks], 32, 32, PHOTO)
    np.testing.assert_array_equal(images.numpy(), (np.clip(expected, 0, 1) * 255).round() / np.float32(255))
    np.testing.assert_array_equal(first.numpy(), images[:1].numpy())
    np.testing.assert_array_equal(np.asarray(video.pictures), images.numpy())
    assert fps == 16
    assert audio["waveform"].shape == (1, 2, 6 * RATE // 16)


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(32, 0, (32, 16)), (0, 64, (128, 64)), (0, 0, (WIDTH, HEIGHT))]
)
def test_one_side_follows_the_other(load, width, height, expected):
    assert load(width=width, height=height)[VIDEO].get_dimensions() == expected


def test_a_mask_keeps_its_colours(load, clip):
    pure = set(map(tuple, read_video(clip).frames.reshape(-1, 3)))
    resized = load(width=32, height=32, content="mask")[IMAGES].numpy().reshape(-1, 3)
    assert set(map(tuple, resized)) <= pure


def test_the_sound_is_that_of_the_pictures(load):
    """Silence until a quarter of a second, then the left channel alone: from frame 3 on that is 3 frames later."""
    waveform = load(start_frame=3)[AUDIO]["waveform"][0].numpy()
    assert waveform.shape == (2, RATE * 21 // FPS)
    begins = 3 * RATE // FPS
    assert not waveform[:, :begins].any()
    np.testing.assert_allclose(waveform[0, begins:], 0.5, atol=2 / 32768)  # sixteen bits, and their rounding
    assert not waveform[1].any()


def test_a_silent_file_has_no_sound(load, tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((2, 32, 32, 3), np.float32), 16)
    assert load(file=str(tmp_path / "a.mp4"))[AUDIO] is None


@pytest.mark.parametrize(("changes", "words"), [({"start_frame": 24}, "choose 0 to 23"), ({"width": -8}, "below 0")])
def test_what_no_clip_can_be_is_refused(load, changes, words):
    with pytest.raises(Exception, match=words) as refusal:
        load(**changes)
    assert type(refusal.value).__name__ == "RequestError"  # that of the pack's own copy


def test_two_fits_are_those_of_two_nodes_in_a_row(clip):
    footage = Footage.of(VideoFile.of(clip))[:3]
    expected = np.asarray(footage.fit(32, 32, PHOTO))
    expected = (np.clip(fit(expected, 48, 16, PHOTO), 0, 1) * 255).round() / np.float32(255)
    np.testing.assert_array_equal(np.asarray(footage.fit(32, 32, PHOTO).fit(48, 16, PHOTO)), expected)


def test_pictures_of_one_rate_are_not_picked_twice(clip, listener):
    footage = Footage.of(VideoFile.of(clip)).at_rate(16, listener)
    assert footage.at_rate(16, listener) is footage
    np.testing.assert_array_equal(footage.at_rate(8, listener).numbers, footage.numbers[::2])


class Program:
    """What ComfyUI tells of the prompt that it works on, and of the node at work."""

    def __init__(self, monkeypatch, slots):
        links = {str(slot): {"inputs": {"x": ["1", slot], "size": 3}} for slot in slots}
        running = {0: (0, "prompt", {"1": {"inputs": {}}} | {f"n{k}": v for k, v in links.items()}, {}, [])}
        server = SimpleNamespace(instance=SimpleNamespace(prompt_queue=SimpleNamespace(currently_running=running)))
        context = SimpleNamespace(prompt_id="prompt", node_id="1")
        monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=server))
        utils = SimpleNamespace(get_executing_context=lambda: context)
        monkeypatch.setitem(sys.modules, "comfy_execution.utils", utils)


@pytest.fixture
def asked(monkeypatch):
    """Which pictures the pack's nodes have had decoded."""
    video_file = importlib.import_module(f"{load_pack().__name__}.mlx_backend.media.decode").VideoFile
    numbers, decode = [], video_file.pictures
    monkeypatch.setattr(video_file, "pictures", lambda file, some: numbers.extend(some) or decode(file, some))
    return numbers


def test_nothing_is_decoded_that_nobody_takes(load, asked, monkeypatch):
    Program(monkeypatch, [VIDEO, RATE_OUT])
    images, first, mask, fps, audio, video = load()
    assert (images, first, mask, audio) == (None, None, None, None)
    assert (fps, video.get_frame_count()) == (FPS, FRAMES)
    assert asked == []


def test_the_first_frame_alone_is_one_picture(load, asked, monkeypatch):
    Program(monkeypatch, [FIRST])
    assert load(start_frame=5)[FIRST].shape == (1, HEIGHT, WIDTH, 3)
    assert asked == [5]


def test_a_new_connection_runs_the_node_again(clip, monkeypatch):
    """ComfyUI would otherwise hand out what it has kept, in which that output is missing."""
    cls = next(node for node in load_pack().NODES if node.GET_SCHEMA().node_id == "Scail2LoadVideo")
    seen = []
    for slots in ([VIDEO], [VIDEO, IMAGES], [VIDEO, IMAGES, RATE_OUT]):
        Program(monkeypatch, slots)
        seen.append(cls.fingerprint_inputs(file=str(clip)))
    assert seen[0] != seen[1]
    assert seen[1] == seen[2]  # fps is always there
    assert cls.fingerprint_inputs(file="gone.mp4") != seen[0]
    assert "no video 'gone.mp4'" in cls.validate_inputs(file="gone.mp4")


def test_other_nodes_get_frames_and_sound(load, monkeypatch):
    from comfy_api.latest import Types

    monkeypatch.setattr(Types, "VideoComponents", SimpleNamespace)
    images, *_, audio, video = load(max_frames=4)
    made = video.get_components()
    assert torch.equal(made.images, images)
    assert torch.equal(made.audio["waveform"], audio["waveform"])
    assert made.frame_rate == FPS
    trimmed = video.as_trimmed(1 / FPS, 2 / FPS)
    np.testing.assert_array_equal(np.asarray(trimmed.pictures), images[1:3].numpy())
    assert video.as_trimmed(1) is None
    assert video.as_trimmed(0, 1, strict_duration=True) is None


def test_the_sampler_sees_the_same_either_way(nodes, load):
    """The input check's sheet and report of the VIDEO are those of its images."""
    clip = {"target_fps": 16.0, "max_frames": 9, "width": 64, "height": 64}
    loaded = load(**clip)
    given = {"reference_image": torch.zeros(1, 64, 64, 3), "mode": "animation", "width": 32, "height": 64}
    given |= {"driving_fps": loaded[RATE_OUT]}
    images, told = nodes["Scail2InputCheck"](given | {"driving_video": loaded[IMAGES]})
    video, same = nodes["Scail2InputCheck"](given | {"driving_video": loaded[VIDEO]})
    assert torch.equal(images, video)
    assert told == same


def test_a_video_is_resampled_without_being_decoded(nodes, load, asked, monkeypatch):
    """Of both sides, and to the frames that images become."""
    images, *_, video = load()
    asked.clear()
    rates = {"source_fps": float(FPS), "target_fps": 16.0}
    shown, mask, _, fps, frames = nodes["Scail2ResampleFps"](rates | {"images": video, "mask": video})
    assert (asked, fps, frames) == ([], 16, 16)
    expected, *_ = nodes["Scail2ResampleFps"](rates | {"images": images})
    for made in (shown, mask):
        assert made.get_frame_count() == 16
        np.testing.assert_array_equal(np.asarray(made.pictures), expected.numpy())
    mixed = nodes["Scail2ResampleFps"](rates | {"images": images, "mask": video})
    assert (len(mixed[0]), mixed[1].get_frame_count()) == (16, 16)
    with pytest.raises(Exception, match="The mask has 3 frames and the images 16"):
        nodes["Scail2ResampleFps"](rates | {"images": images, "mask": load(max_frames=4)[VIDEO]})


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    """A mask at the model's rate: nobody for two frames, then a blue square."""
    frames = np.zeros((6, 64, 64, 3), np.float32)
    frames[2:, 16:48, 24:40, 2] = 1
    path = tmp_path_factory.mktemp("mask") / "a.mp4"
    write_video(path, frames, 16)
    return path


def test_the_other_nodes_take_a_video_for_the_driving_mask(nodes, load, person):
    images, *_, video = load(file=str(person), target_fps=16.0)
    mode = {"mode": "animation"}
    painted = {"order": "none", "people": "", "people_per_mask": 1} | mode
    expected, *_ = nodes["Scail2ColoredMask"](painted | {"driving": images})
    made, *_ = nodes["Scail2ColoredMask"](painted | {"driving": video})
    assert made[3, 32, 32].tolist() == [0, 0, 1]
    assert torch.equal(made, expected)

    reference = torch.zeros(1, 64, 64, 3)
    reference[:, 8:56, 8:56, 2] = 1
    framing = {"method": "fit", "width": 64, "height": 64, "start_frame": 0, "reference_image": reference}
    framing |= {"reference_mask": reference} | mode
    *_, scale = nodes["Scail2FitReference"](framing | {"driving_mask": images})
    *_, same = nodes["Scail2FitReference"](framing | {"driving_mask": video})
    assert scale == same != 1


@pytest.mark.parametrize(
    ("shape", "cut", "saved"),
    [
        ((300, 2160, 3840, 3), slice(0, None), "28.4 GB"),  # larger frames
        ((300, 480, 832, 3), slice(0, 81), "1.0 GB"),  # more frames
        ((300, 480, 832, 3), slice(0, None), None),
        ((81, 720, 1280, 3), slice(0, None), None),  # larger, but by less than a gigabyte
    ],
)
def test_images_far_beyond_the_run_are_told_with_the_saving(shape, cut, saved, listener):
    pictures = np.broadcast_to(np.float32(0), shape)  # all of one number, in four bytes
    tell_surplus("driving video", pictures, cut, (832, 480), listener)
    assert len(listener.warnings) == (saved is not None)
    for warning in listener.warnings:
        assert f"saves about {saved}" in warning
        assert "SCAIL-2 Load Video to 'driving_video'" in warning
