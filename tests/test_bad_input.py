"""Input that cannot be used, or only with a warning: each ends in one clear sentence, and its valid neighbours pass."""

import io
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter
from support import (
    HEIGHT,
    WIDTH,
    Recorder,
    a_sampling,
    generate,
    golden_cases,
    golden_file,
    golden_prompts,
    golden_scene,
    golden_settings,
)

from mlx_backend.interface.errors import NumericsError, RequestError
from mlx_backend.interface.requests import Scene
from mlx_backend.members.scail2.masks import IDENTITIES, PLANES
from mlx_backend.members.scail2.scene import prepare_picture, prepare_scene
from mlx_backend.models.scail2 import Scail2Model
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.pipelines.text import Prompts

COLOURS = [tuple(255 * channel for channel in PLANES[name]) for name in IDENTITIES]
OFF_PALETTE = {
    "orange": (255, 128, 0),
    "web orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "violet": (128, 0, 255),
    "teal": (0, 128, 128),
}
BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (128, 128, 128)


def told(scene: Scene) -> list[str]:
    listener = Recorder()
    prepare_scene(scene, listener)
    return listener.warnings


def refused(scene: Scene, *words: str) -> None:
    """Assert that the scene is refused in one sentence with these words."""
    with pytest.raises(RequestError) as caught:
        prepare_scene(scene, Recorder())
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for word in words:
        assert word in sentence


def warned_once(scene: Scene, *words: str) -> None:
    """Assert that the scene passes with exactly one warning, with these words."""
    warnings = told(scene)
    assert len(warnings) == 1, warnings
    for word in words:
        assert word in warnings[0]


def people(
    colours: list[tuple[int, int, int]],
    size: tuple[int, int] = (WIDTH, HEIGHT),
    background: tuple[int, int, int] = BLACK,
    blur: float = 0,
) -> np.ndarray:
    """Paint ellipses side by side, antialiased, and then blurred: [H, W, 3], uint8."""
    width, height = size
    rows, columns = np.mgrid[: 4 * height, : 4 * width] / 4
    canvas = np.full((4 * height, 4 * width, 3), background, np.uint8)
    step = width / len(colours)
    for i, colour in enumerate(colours):
        inside = ((columns - (i + 0.5) * step) / (0.4 * step)) ** 2 + ((rows - height / 2) / (0.4 * height)) ** 2 < 1
        canvas[inside] = colour
    picture = Image.fromarray(canvas).resize(size, Image.Resampling.BOX)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(blur)) if blur else picture)


def compressed(frames: np.ndarray, crf: int) -> np.ndarray:
    """Return what is left of frames [F, H, W, 3], uint8, after H.264 with halved colour."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": str(crf)})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def with_driving_mask(mask: np.ndarray, mode: str = "animation") -> Scene:
    """A scene of nine frames with a driving mask (uint8, one picture or nine); its other parts are right for `mode`."""
    scene = golden_scene(0 if mode == "animation" else 1)
    frames = np.broadcast_to(mask, (len(scene.driving), *mask.shape[-3:]))
    return replace(scene, driving_mask=frames.astype(np.float32) / 255)


# Sizes and settings


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("width", 100, ("width", "100", "32", "96 or 128")),
        ("height", 60, ("height", "60", "32 or 64")),
        ("width", 0, ("width", "0", "32")),
        ("height", -64, ("height", "-64", "32")),
        ("width", 31, ("31", "32 or 64")),
    ],
)
def test_a_size_that_is_no_multiple_of_32_is_refused(name, value, words):
    with pytest.raises(RequestError) as caught:
        prepare_scene(replace(golden_scene(0), **{name: value}), Recorder())
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, ("steps", "0", "1 to 1000")),
        ({"steps": -3}, ("steps", "-3")),
        ({"solver": "heun"}, ("solver", "'heun'", "unipc, dpm++, euler")),
        ({"solver": "UniPC"}, ("'UniPC'", "unipc")),
        ({"shift": 0.0}, ("shift", "0.0", "0.01 to 100")),
        ({"shift": float("nan")}, ("shift", "nan")),
        ({"cfg": float("inf")}, ("cfg", "inf")),
        ({"segment_length": 80}, ("segment length", "80", "77 or 81")),
        ({"segment_overlap": 4}, ("segment overlap", "4", "1 or 5")),
        ({"segment_length": 5, "segment_overlap": 5}, ("overlap", "5", "smaller")),
    ],
)
def test_settings_that_no_run_can_have_are_refused(settings, words):
    with pytest.raises(RequestError) as caught:
        a_sampling(**settings)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
@pytest.mark.parametrize(("steps", "shift"), [(1, 3), (1000, 0.01), (1000, 100), (7, 0.01), (40, 100)])
def test_the_widest_settings_give_finite_steps(solver, steps, shift):
    from mlx_backend.sampling.solvers import make_solver

    settings = a_sampling(steps=steps, shift=shift, solver=solver)
    sampler, sample = make_solver(settings.solver, settings.steps, settings.shift), np.ones(16)
    for i in range(steps):
        sampler, sample = sampler.step(i, 0.5 * sample, sample)
    assert np.isfinite(sample).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "Replacement"}, ("'Replacement'", "animation, replacement")),
        ({"start_frame": -1}, ("Start frame", "-1")),
        ({"max_frames": -2}, ("-2",)),
    ],
)
def test_a_scene_with_impossible_settings_is_refused(changes, words):
    with pytest.raises(RequestError) as caught:
        replace(golden_scene(0), **changes)
    assert all(word in str(caught.value) for word in words)


# Lengths


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_a_short_driving_video_gives_as_many_frames(frames, models, listener):
    scene = replace(golden_scene(0), max_frames=frames)
    settings = replace(golden_settings(0), steps=1, cfg=1.0)
    made = generate(models, golden_prompts(0), scene, settings, None, listener)
    assert made.shape == (frames, HEIGHT, WIDTH, 3)
    assert np.isfinite(made).all()
    assert listener.warnings == []


def test_a_driving_video_of_no_frames_is_refused():
    scene = golden_scene(0)
    refused(replace(scene, driving=scene.driving[:0], driving_mask=scene.driving_mask[:0]), "driving video", "0 frames")
    refused(replace(scene, references=scene.references[:0]), "reference image", "0 frames")
    refused(replace(scene, reference_masks=scene.reference_masks[:0]), "reference mask", "0 frames")


def test_a_start_beyond_the_end_is_refused():
    refused(replace(golden_scene(0), start_frame=9), "start frame is 9", "9 frames", "0 to 8")
    assert told(replace(golden_scene(0), start_frame=8)) == []


@pytest.mark.parametrize("frames", [0, 1, 8, 10])
def test_a_mask_of_another_length_is_refused_with_both_counts(frames):
    scene = golden_scene(0)
    mask = np.concatenate([scene.driving_mask] * 2)[:frames]
    plural = "frame " if frames == 1 else "frames "
    refused(replace(scene, driving_mask=mask), f"driving mask has {frames} {plural}", "driving video 9")


def test_a_one_frame_mask_goes_with_a_still():
    scene = golden_scene(0)
    assert told(replace(scene, driving=scene.driving[:1], driving_mask=scene.driving_mask[:1])) == []


def test_too_many_reference_masks_are_refused():
    scene = golden_scene(0)
    masks = np.repeat(scene.reference_masks, 2, axis=0)
    refused(replace(scene, reference_masks=masks), "2 reference masks", "1 reference image:")


def test_extra_references_without_masks_are_told_once():
    scene = golden_scene(0)
    scene = replace(scene, references=np.repeat(scene.references, 3, axis=0))
    warned_once(scene, "3 reference images", "1 reference mask:", "the last 2 without", "'reference_mask'")
    warned_once(replace(scene, reference_masks=None), "extra references", "'reference_mask'")


@pytest.mark.parametrize(("name", "socket"), [("driving_mask", "driving_mask"), ("reference_masks", "reference_mask")])
def test_a_scene_without_a_mask_is_told_so(name, socket):
    warned_once(replace(golden_scene(0), **{name: None}), "no ", f"'{socket}'")


# Sizes of pictures


def test_a_mask_of_another_size_is_resized_and_told_once(models, listener):
    scene = golden_scene(0)
    small = people(COLOURS[:1], (80, 60))[None].repeat(9, axis=0).astype(np.float32) / 255
    warned_once(replace(scene, driving_mask=small), "driving mask", "80 x 60", "driving video 96 x 64")
    reference = people(COLOURS[:1], (80, 60), WHITE)[None].astype(np.float32) / 255
    warned_once(replace(scene, reference_masks=reference), "reference mask", "80 x 60", "reference image 96 x 64")

    settings = replace(golden_settings(0), steps=1, cfg=1.0)
    made = generate(models, golden_prompts(0), replace(scene, driving_mask=small), settings, None, listener)
    assert made.shape == scene.driving.shape
    assert len(listener.warnings) == 1


def test_video_and_reference_may_differ_in_size():
    scene = golden_scene(0)
    tall = np.random.default_rng(0).random((1, 200, 120, 3), dtype=np.float32)
    mask = people(COLOURS[:1], (120, 200), WHITE)[None].astype(np.float32) / 255
    prepared = prepare_scene(replace(scene, references=tall, reference_masks=mask), Recorder())
    assert prepared.size == (HEIGHT, WIDTH)  # the reference stands upright, so the clip does
    assert prepared.references.shape == (1, WIDTH, HEIGHT, 3)
    assert prepared.driving_mask.shape == (9, WIDTH, HEIGHT, 3)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("driving", (9, 64, 96), ("driving video", "[9, 64, 96]")),
        ("driving", (9, 64, 96, 4), ("driving video", "[9, 64, 96, 4]", "alpha")),
        ("references", (1, 64, 96), ("reference image", "[1, 64, 96]")),
        ("driving_mask", (64, 96), ("driving mask", "[64, 96]")),
        ("driving_mask", (9, 64, 96, 1), ("driving mask", "[9, 64, 96, 1]", "[frames, height, width]")),
        ("reference_masks", (1, 0, 96, 3), ("reference mask", "96 x 0 pixels")),
    ],
)
def test_pictures_of_another_shape_are_refused(name, shape, words):
    refused(replace(golden_scene(0), **{name: np.zeros(shape, np.float32)}), *words)


# Pixels

PIXELS = [
    ("driving", "driving video"),
    ("references", "reference image"),
    ("driving_mask", "driving mask"),
    ("reference_masks", "reference mask"),
]


@pytest.mark.parametrize(("name", "called"), PIXELS)
def test_nan_is_refused_with_its_frame(name, called):
    pictures = getattr(golden_scene(0), name).copy()
    pictures[-1, 3, 4, 1] = np.nan
    refused(replace(golden_scene(0), **{name: pictures}), called, "NaN", f"frame {len(pictures) - 1}")


def test_frames_are_numbered_from_the_start_of_the_video():
    scene = golden_scene(0)
    video, mask = scene.driving.copy(), scene.driving_mask.copy()
    video[7] = np.nan
    refused(replace(scene, driving=video, start_frame=5), "frame 7")
    assert told(replace(scene, driving=video, max_frames=7)) == []  # not among the frames used
    mask[6] = 0
    warned_once(replace(scene, driving_mask=mask, start_frame=5), "1 of 4 frames", "frame 6")


@pytest.mark.parametrize(("name", "called"), PIXELS)
def test_pixels_out_of_range_are_clipped_and_told_once(name, called, models, listener):
    scene = golden_scene(0)
    wide = getattr(scene, name).copy()
    wide[0, 0, 0], wide[0, 0, 1] = -0.25, 1.25
    changed = replace(scene, **{name: wide})
    warned_once(changed, called, "-0.25 to 1.25", "clipped to 0..1.")
    prepared = prepare_scene(changed, listener)
    clipped = prepare_scene(replace(scene, **{name: np.clip(wide, 0, 1)}), listener)
    for part in ("references", "driving", "driving_mask"):
        assert np.array_equal(getattr(prepared, part), getattr(clipped, part))


def test_pixels_of_0_to_255_are_told_what_to_do():
    scene = golden_scene(0)
    video = np.random.default_rng(0).integers(0, 256, scene.driving.shape, np.uint8)
    warned_once(replace(scene, driving=video), "driving video", "0 to 255", "divide them by 255")


def test_infinite_pixels_are_clipped():
    video = golden_scene(0).driving.copy()
    video[2, 0, 0, 0], video[3, 0, 0, 0] = np.inf, -np.inf
    warned_once(replace(golden_scene(0), driving=video), "driving video", "-inf to inf", "clipped")


def test_clips_picture_is_checked_once(listener):
    """It usually is the reference image, about which a warning was given already."""
    scene = golden_scene(1)
    scene = replace(scene, references=scene.references + np.float32(1))
    prepared = prepare_scene(scene, listener)
    assert np.array_equal(prepare_picture(scene.references, prepared, scene, listener), prepared.references[0])
    assert len(listener.warnings) == 1
    prepare_picture(scene.references[:, ::-1], prepared, scene, listener)
    assert "for CLIP" in listener.warnings[1]
    with pytest.raises(RequestError, match="for CLIP has pixels that are not numbers"):
        prepare_picture(scene.references * np.float32(np.nan), prepared, scene, listener)


# Masks: nobody in them


@pytest.mark.parametrize("empty", [[0], [3, 4], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_a_mask_that_is_empty_in_some_frames_is_told_once(empty):
    mask = golden_scene(0).driving_mask.copy()
    mask[empty] = 0
    warned_once(
        replace(golden_scene(0), driving_mask=mask), "driving mask", f"{len(empty)} of 9 frames", f"frame {empty[0]}"
    )


@pytest.mark.parametrize("colour", [BLACK, WHITE, GREY, (200, 0, 0), (128, 0, 128)])
def test_a_mask_without_people_is_refused(colour):
    mask = np.full((HEIGHT, WIDTH, 3), colour, np.uint8)
    refused(with_driving_mask(mask), "driving mask", "no person", "9 frames", "blue", "MASK")
    reference = np.full((1, HEIGHT, WIDTH, 3), colour, np.float32) / 255
    refused(replace(golden_scene(0), reference_masks=reference), "reference mask", "no person")


def test_a_black_and_white_picture_as_mask_is_told_to_be_a_mask():
    refused(with_driving_mask(people([WHITE])), "driving mask", "no person", "connect a MASK", "white")


def test_some_extra_references_may_have_an_empty_mask():
    scene = golden_scene(7)
    masks = scene.reference_masks.copy()
    assert len(masks) == 3
    masks[1] = 1
    warned_once(replace(scene, reference_masks=masks), "reference mask", "1 of 3 frames", "frame 1")


@pytest.mark.parametrize("mode", ["animation", "replacement"])
def test_a_mask_for_one_person_is_painted(mode):
    scene = golden_scene(0 if mode == "animation" else 1)
    soft = people([WHITE], blur=3)[..., 0].astype(np.float32) / 255
    painted = replace(scene, driving_mask=np.stack([soft] * 9), reference_masks=soft[None])
    assert told(painted) == []
    prepared = prepare_scene(painted, Recorder())
    around = 0 if mode == "animation" else 1
    assert {tuple(colour) for colour in np.unique(prepared.driving_mask.reshape(-1, 3), axis=0)} == {
        (0, 0, 1),
        (around,) * 3,
    }
    assert (prepared.reference_masks[0][0, 0, 0] == 1 - around).all()
    assert prepared.driving_mask[0, HEIGHT // 2, WIDTH // 2].tolist() == [0, 0, 1]


def test_an_empty_mask_for_one_person_is_refused():
    """What LoadImage gives for a picture without alpha."""
    empty = np.zeros((1, 64, 64), np.float32)
    refused(replace(golden_scene(0), reference_masks=empty), "reference mask", "no person", "MASK")


# Masks: how many people


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (512, 288)])
@pytest.mark.parametrize("count", [1, 4, 6])
def test_six_people_pass_with_soft_and_compressed_edges(count, size):
    """Blurred edges are shades of their own, but not people."""
    height = size[1]
    clear = people(COLOURS[:count], size)
    masks = [clear, people(COLOURS[:count], size, blur=height / 80), people(COLOURS[:count], size, blur=height / 40)]
    masks += [compressed(np.stack([clear] * 2), crf)[1] for crf in (16, 28, 35)]
    mask = np.stack(masks).astype(np.float32) / 255
    scene = replace(golden_scene(0), driving=np.full_like(mask, 0.5), driving_mask=mask, width=size[0], height=height)
    assert told(scene) == []


@pytest.mark.parametrize("seventh", OFF_PALETTE)
def test_a_seventh_person_is_refused(seventh):
    size = (256, 160)
    mask = people([*COLOURS, OFF_PALETTE[seventh]], size)
    for pixels in (mask, people([*COLOURS, OFF_PALETTE[seventh]], size, blur=1.5), compressed(mask[None], 28)[0]):
        scene = replace(with_driving_mask(pixels), width=size[0], height=size[1])
        refused(scene, "driving mask", "7 people", "6", ", ".join(IDENTITIES), "'driving_mask'")


def test_people_are_counted_over_the_whole_video():
    mask = np.stack([people(COLOURS[:5])] * 8 + [people([COLOURS[5], OFF_PALETTE["violet"]])])
    refused(with_driving_mask(mask), "7 people")


def test_a_colour_that_the_model_does_not_know_is_told_once():
    mask = np.stack([people(COLOURS[:1])] * 4 + [people([COLOURS[0], OFF_PALETTE["orange"]])] * 5)
    warned_once(with_driving_mask(mask), "driving mask", "#FF8000 in frame 4", "blue, red")


# Masks: what is around the people


@pytest.mark.parametrize("mode", ["animation", "replacement"])
@pytest.mark.parametrize("background", [BLACK, GREY, WHITE])
@pytest.mark.parametrize("treated", ["clear", "soft", "compressed"])
def test_a_background_of_the_other_mode_is_told_once_with_its_socket(mode, background, treated):
    mask = people(COLOURS[:2], background=background, blur=2 if treated == "soft" else 0)
    if treated == "compressed":
        mask = compressed(mask[None], 28)[0]
    name = {BLACK: "black", GREY: "grey", WHITE: "white"}[background]
    for socket, right in (
        ("driving_mask", BLACK if mode == "animation" else WHITE),
        ("reference_mask", WHITE if mode == "animation" else BLACK),
    ):
        scene = with_driving_mask(mask, mode)
        if socket == "reference_mask":
            scene = replace(
                golden_scene(0 if mode == "animation" else 1), reference_masks=mask[None].astype(np.float32) / 255
            )
        if background == right:
            assert told(scene) == []
        else:
            warned_once(scene, socket.replace("_", " "), f"{name} background", f"{mode} mode wants", f"'{socket}'")


def test_swapped_masks_are_told_for_both_sockets():
    scene = golden_scene(0)
    masks = (scene.reference_masks.repeat(9, axis=0), scene.driving_mask[:1])
    warnings = told(replace(scene, driving_mask=masks[0], reference_masks=masks[1]))
    assert len(warnings) == 2
    assert "'driving_mask'" in warnings[0]
    assert "'reference_mask'" in warnings[1]


@pytest.mark.parametrize("index", range(len(golden_cases("pipeline"))))
def test_the_golden_scenes_are_told_only_what_they_lack(index):
    assert len(told(golden_scene(index))) == len(golden_cases("pipeline")[index]["without"])


# Prompts


@pytest.mark.parametrize(("tokens", "warns"), [(511, False), (512, False), (513, True), (900, True)])
def test_a_prompt_beyond_512_tokens_is_told_with_its_count(tokens, warns, models, listener):
    from mlx_backend.conditioning.text import tokenise
    from mlx_backend.weights.checkpoints.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(models.text_encoder.store.snapshot.tokenizer)
    prompt = "w" * (tokens - 2)  # beside the token that begins a word and the one that ends the prompt
    ids = tokenise(tokenizer, prompt, listener)
    assert len(ids) == min(tokens, 512)
    assert len(listener.warnings) == warns
    if warns:
        assert f"{tokens} tokens" in listener.warnings[0]
        assert "512" in listener.warnings[0]


def test_both_prompts_are_named_when_they_are_too_long(models, listener):
    scene = replace(golden_scene(0), max_frames=1)
    settings = replace(golden_settings(0), steps=1)
    made = generate(models, Prompts("w" * 600, "d" * 700), scene, settings, None, listener)
    assert made.shape == (1, HEIGHT, WIDTH, 3)
    assert [w.split(" tokens")[0] for w in listener.warnings] == ["The prompt has 602", "The negative prompt has 702"]


@pytest.mark.parametrize("prompt", ["", " \n\t ", "\ud800 broken", "</s></s>", "🙂 日本 \x00", "&lt;&amp;gt;"])
def test_any_text_is_a_prompt(prompt, models, listener):
    from mlx_backend.pipelines.text import encode_prompts

    features = encode_prompts(models.text_encoder, prompt, "", listener)
    assert np.isfinite(features.positive).all()
    assert len(features.negative) == 1


# When things go wrong during a run


@pytest.mark.parametrize("step", [1, 3])
def test_nan_from_the_model_stops_the_run_at_its_step(step, models, listener, monkeypatch):
    calls = []

    def broken(self, x, t, *arguments, forward=Scail2Model.__call__):
        calls.append(t)
        out = forward(self, x, t, *arguments)
        out[3, 0, 2, 1] = float("nan") if len(calls) == step else out[3, 0, 2, 1]
        return out

    monkeypatch.setattr(Scail2Model, "__call__", broken)
    settings = replace(golden_settings(0), cfg=1.0)
    with pytest.raises(NumericsError, match=f"step {step} of 3"):
        generate(models, golden_prompts(0), golden_scene(0), settings, None, listener)
    assert len(calls) == step


def test_nan_in_a_later_segment_says_in_which(models, listener, monkeypatch):
    calls = []

    def broken(self, x, *arguments, forward=Scail2Model.__call__):
        calls.append(1)
        return forward(self, x, *arguments) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(Scail2Model, "__call__", broken)
    settings = replace(golden_settings(3), cfg=1.0)
    with pytest.raises(NumericsError, match="segment 2 of 3: .* step 2 of 2"):
        generate(models, golden_prompts(3), golden_scene(3), settings, None, listener)


def test_nothing_is_loaded_for_a_scene_that_is_refused(snapshot, listener):
    """The text encoder alone takes minutes to load at full size."""
    store = ModelStore(snapshot, "auto")
    scene = replace(golden_scene(0), driving_mask=np.zeros_like(golden_scene(0).driving_mask))
    with pytest.raises(RequestError, match="no person"):
        generate(Models.of(store), golden_prompts(0), scene, golden_settings(0), None, listener)
    assert store.loaded == ()
    assert listener.events == []


def test_a_refused_run_leaves_the_next_one_whole(models, listener):
    with pytest.raises(RequestError):
        generate(models, golden_prompts(2), replace(golden_scene(2), start_frame=4), golden_settings(2), None, listener)
    made = generate(models, golden_prompts(2), golden_scene(2), golden_settings(2), None, listener)
    assert np.abs(made - golden_file("pipeline")["2.frames"].astype(np.float32)).max() < 6e-4
