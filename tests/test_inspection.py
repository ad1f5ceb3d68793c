"""One look before the sampler: each warning with a case where it is due and one where it is not."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from support import GOLDENS, ROOT, Recorder, a_scene, golden_scene, pictures_of

from demo.pack import load_pack
from mlx_backend.interface.errors import Cancelled, DependencyError, RequestError
from mlx_backend.interface.segments import plan_segments
from mlx_backend.media.read import read_video
from mlx_backend.media.resize import halved
from mlx_backend.members.scail2 import input_sheet as sheets
from mlx_backend.members.scail2.input_sheet import input_sheet, tinted
from mlx_backend.members.scail2.inspection import inspect_people
from mlx_backend.members.scail2.masks import BLACK, PLANES, WHITE, packed
from mlx_backend.members.scail2.scene import PreparedScene
from mlx_backend.members.scail2.streams import window
from mlx_backend.pipelines import input_check, planning
from mlx_backend.pipelines.input_check import check_inputs
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.runtime.probe import Rate
from mlx_backend.weights.checkpoints.snapshot import Snapshot

WIDTH, HEIGHT = 128, 96
ASSETS = ROOT / "assets"
SMALL = {"mode": "animation", "width": 96, "height": 64}


def drawn(people, background=BLACK):
    """Return one mask [H, W, 3]: {colour: (left, top, width, height)}, later ones in front."""
    mask = np.empty((HEIGHT, WIDTH, 3), np.float32)
    mask[:] = background
    for colour, (left, top, width, height) in people.items():
        mask[top : top + height, left : left + width] = PLANES[colour]
    return mask


def told(driving, reference=None, first=0):
    """Return the warnings about driving masks and a reference mask, each a dict of people."""
    listener = Recorder()
    mask = np.stack([drawn(people) for people in driving])
    references = () if reference is None else (drawn(reference, WHITE)[None],)
    scene = PreparedScene(
        references=np.zeros((max(1, len(references)), HEIGHT, WIDTH, 3), np.float32),
        reference_masks=references or (None,),
        driving=np.zeros_like(mask),
        driving_mask=mask,
        is_replacement=False,
    )
    inspect_people(scene, first, listener)
    return listener.warnings


def one_told(*arguments, **named):
    warnings = told(*arguments, **named)
    assert len(warnings) == 1, warnings
    return warnings[0]


BOX = (40, 20, 24, 60)
CHILD = (46, 60, 12, 20)
LEFT, RIGHT = (10, 20, 24, 60), (90, 20, 24, 60)


# People who come and go


def test_somebody_who_is_always_seen_is_not_told():
    assert told([{"blue": BOX}] * 6, {"blue": BOX}) == []


def test_nobody_vanishes_from_a_still_picture():
    assert told([{"blue": LEFT, "red": RIGHT}], {"blue": LEFT, "red": RIGHT}) == []


def test_somebody_who_appears_late_is_told_with_the_frame():
    frames = [{"blue": LEFT}] * 3 + [{"blue": LEFT, "red": RIGHT}] * 3
    warning = one_told(frames, first=100)
    assert "red appears only in frame 103: " in warning
    assert "start_frame" in warning


def test_somebody_who_vanishes_is_told_with_the_frame():
    assert "blue is gone from frame 4 on: " in one_told([{"blue": BOX}] * 4 + [{}] * 2)


def test_somebody_who_is_away_is_told_with_the_frames():
    here, away = [{"blue": BOX}], [{}]
    assert "blue is away in frames 2 to 3, frame 5: " in one_told(here * 2 + away * 2 + here + away + here)
    assert "blue appears only in frame 1, is away in frame 2 and is gone from frame 4 on: " in one_told(
        away + here + away + here + away
    )
    often = one_told((here + away) * 7 + here)
    assert "frame 1, frame 3, frame 5, frame 7 and 3 more times: " in often


def test_specks_are_nobody():
    speck = (5, 5, 2, 2)
    assert told([{"blue": BOX}, {"blue": BOX, "cyan": speck}], {"blue": BOX}) == []


# People who cross


def moved(steps, box=BOX):
    return [(box[0] + step, *box[1:]) for step in steps]


def test_people_side_by_side_are_not_told():
    steps = range(-8, 9, 4)
    frames = [{"blue": a, "red": b} for a, b in zip(moved(steps, LEFT), moved(steps, RIGHT), strict=True)]
    assert told(frames, frames[0]) == []
    close = {"blue": (40, 20, 24, 60), "red": (58, 20, 24, 60)}  # a quarter of the width in common
    assert told([close] * 3, close) == []


def test_people_whose_boxes_overlap_are_told_with_the_frames():
    frames = [{"blue": BOX, "red": red} for red in moved([30, 20, 14, 8, 20], CHILD)]
    warning = one_told(frames, first=10)
    assert "blue and red overlap from frame 12 on, most in frame 13: " in warning


def test_people_who_change_sides_are_told_with_the_frame():
    frames = [{"blue": LEFT, "red": RIGHT}] * 2 + [{"blue": RIGHT, "red": LEFT}] * 2
    assert "blue and red change sides in frame 2: " in one_told(frames)
    passing = [{"blue": blue, "red": CHILD} for blue in moved(range(-30, 31, 6))]
    assert "overlap from frame 3 on, most in frame 4 and change sides in frame 6: " in one_told(passing)


def test_people_who_are_never_seen_together_do_not_cross():
    assert all("cross" not in w and "sides" not in w for w in told([{"blue": LEFT}, {"red": LEFT}]))


# People on one side only


def test_the_same_colours_on_both_sides_are_not_told():
    people = {"blue": LEFT, "red": RIGHT}
    assert told([people] * 2, people) == []


@pytest.mark.parametrize("side", ["driving", "reference"])
def test_a_colour_on_one_side_only_is_told(side):
    both, one = {"blue": LEFT, "red": RIGHT}, {"blue": LEFT}
    driving, reference = (both, one) if side == "driving" else (one, both)
    assert one_told([driving] * 2, reference).startswith(f"Only the {side} mask shows red: ")


def test_sides_without_a_common_colour_have_no_size_to_compare():
    assert [w.split(":")[0] for w in told([{"blue": (40, 20, 24, 60)}], {"red": (40, 20, 8, 12)})] == [
        "Only the driving mask shows blue",
        "Only the reference mask shows red",
    ]


# The reference person's size


@pytest.mark.parametrize("height", [30, 42, 58])
def test_a_reference_person_of_about_the_same_size_is_not_told(height):
    assert told([{"blue": (40, 20, 24, 40)}] * 2, {"blue": (40, 10, 24, height)}) == []


@pytest.mark.parametrize(("height", "factor", "how"), [(80, "2", "large"), (16, "0.4", "small")])
def test_a_reference_person_of_another_size_is_told_with_the_factor(height, factor, how):
    frames = [{}, {"blue": (40, 20, 24, 40)}, {"blue": (40, 20, 24, 80)}]
    (warning,) = (w for w in told(frames, {"blue": (40, 10, 24, height)}, first=7) if "tall" in w)
    assert f"The reference's person is {factor} times as tall as the driving video's (blue, frame 8)" in warning
    assert f"too {how}" in warning
    assert "Scail2FitReference" in warning


def test_several_people_are_compared_by_the_box_around_them():
    """Blue alone would be twice as tall in the reference."""
    driving = {"blue": (10, 20, 24, 30), "red": (90, 20, 24, 60)}
    reference = {"blue": (10, 20, 24, 60), "red": (90, 20, 24, 60)}
    assert told([driving] * 2, reference) == []


def test_somebody_who_is_cut_off_is_compared_by_area():
    """A near view reaches the edge: a third taller only, though it is twice as large."""
    whole, near = {"blue": (40, 20, 24, 60)}, {"blue": (20, 16, 72, 80)}
    assert 80 / 60 < 1.5 < (72 * 80 / 24 / 60) ** 0.5
    warning = one_told([whole] * 2, near)
    assert "is 2 times as large as the driving video's" in warning
    assert "the reference's picture cuts the person off" in warning
    warning = one_told([near] * 2, whole)
    assert "is 0.5 times as large as the driving video's" in warning
    assert "the driving video's picture cuts" in warning
    assert told([near] * 2, near) == []
    slim = {"blue": (40, 16, 18, 80)}  # reaches the edge, and is as large
    assert told([whole] * 2, slim) == []


# The sheet


@pytest.mark.parametrize(("frames", "length", "overlap"), [(1, 9, 5), (7, 9, 5), (24, 13, 5), (30, 9, 1)])
def test_the_sheet_shows_the_channels_that_the_sampler_makes(frames, length, overlap):
    """Each frame's latent frame covers it, is not one that a segment only continues from, and has the same channels."""
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, (frames, 32, 64, 3)).astype(np.float32).repeat(2, axis=1).repeat(2, axis=2)
    plan = plan_segments(frames, length, overlap)
    for frame in range(frames):
        number, latent = sheets._place(plan, frame)
        segment = plan.segments[number]
        assert 4 * (latent - 1) < frame - segment.start <= 4 * latent < segment.frames
        assert frame - segment.start >= segment.history
        whole = packed(halved(window(mask, segment)))
        assert np.array_equal(sheets._latent_mask(mask, segment, latent), whole[:, latent])


def test_only_what_the_model_takes_for_people_is_tinted():
    mask = drawn({"blue": LEFT, "yellow": RIGHT}, WHITE)
    mask[:, 60:64] = (0, 0, 0.8)  # below the threshold
    picture = np.full_like(mask, 0.4)
    shown = tinted(picture, mask)
    assert np.allclose(shown[30, 20], (0.2, 0.2, 0.7))
    assert np.allclose(shown[30, 100], (0.7, 0.7, 0.2))
    shown[mask[..., 0] != mask[..., 2]] = 0.4
    assert np.array_equal(shown[:, :60], picture[:, :60])
    assert np.array_equal(shown[:, 60:64], picture[:, 60:64])


def test_the_sheet_has_a_row_for_each_plane_that_is_on():
    """Rows of 26 + 256 + 12 pixels below a margin of 12; pictures of 4:3 are 341 wide."""
    mask = np.stack([drawn({"blue": LEFT, "red": RIGHT})] * 5)
    scene = PreparedScene(
        references=np.zeros((1, HEIGHT, WIDTH, 3), np.float32),
        reference_masks=(drawn({"blue": LEFT}, WHITE)[None],),
        driving=np.zeros_like(mask),
        driving_mask=mask,
        is_replacement=False,
    )
    plan = plan_segments(5, 9, 5)
    rows = ["reference", "its planes", "driving", "red", "blue"]
    sheet = input_sheet(scene, plan, 0)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (12 + 294 * len(rows), 2 * 12 + 3 * 341 + 2 * 6, 3)
    top = 12 + 294 * 3 + 26
    assert sheet[top : top + 256, ..., 0].max() == 255, "the red plane is red"
    assert sheet[top : top + 256, 12:300, 2].max() < 150, "and nothing of it blue"
    bare = replace(scene, reference_masks=(None,), driving_mask=None)
    assert input_sheet(bare, plan, 0).shape[0] == 12 + 294 * 2
    black = replace(scene, driving_mask=np.zeros_like(mask))
    assert input_sheet(black, plan, 0).shape[0] == 12 + 294 * 4, "an empty mask is shown as empty"


# The whole look


class Probe:
    sentence = "A machine."
    rate = Rate(1e12, "float32", 768)

    @staticmethod
    def forecast(flops, passes, beside):
        return f"Expect {passes} passes."


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with memory for anything, so that what is told is about the inputs."""
    monkeypatch.setattr(planning, "machine_probe", Probe)
    monkeypatch.setattr(planning, "memory_budget", lambda *_: 500 * 10**9)
    monkeypatch.setattr(planning, "free_memory", lambda: None)


def looked(scene, dit=None, vae=None, **changes):
    return check_inputs(pictures_of(scene), SMALL | changes, dit, vae, Recorder())


def golden(**changes):
    return replace(golden_scene(0), **changes)


@cache
def sample(mode):
    ending = "" if mode == "animation" else "_replacement"
    return a_scene(
        references=read_video(ASSETS / "reference.png").frames,
        driving=read_video(ASSETS / "driving.mp4", 0, 9).frames,
        reference_masks=read_video(ASSETS / f"reference_mask{ending}.png").frames,
        driving_mask=read_video(ASSETS / f"driving_mask{ending}.mp4", 0, 9).frames,
    )


@pytest.mark.parametrize("mode", ["animation", "replacement"])
def test_the_shipped_samples_are_ready(mode):
    found = looked(sample(mode), mode=mode, width=448, height=256)
    assert found.findings == ()
    assert str(found).startswith("Nothing stands out: the inputs are ready")
    assert "The driving mask shows blue in all of 9 frames." in found.plan


def test_the_plan_is_said_in_numbers():
    """21 frames in windows of 13 that advance by 8; 96 x 64 pixels are 12 x 8 cells, 24 tokens to a latent frame."""
    video = np.resize(golden_scene(0).driving, (23, 64, 96, 3))
    mask = np.resize(golden_scene(0).driving_mask, (23, 64, 96, 3))
    scene = golden(driving=video, driving_mask=mask)
    shape = {"segment_length": 13, "segment_overlap": 5, "start_frame": 2}
    found = looked(scene, **shape, steps=6, cfg=1.0)
    assert found.plan[:3] == (
        "21 frames of 96 x 64 pixels, from frames 2 to 22 of 23 of the driving video: 1.31 s at 16 fps.",
        "2 segments: 2 of 13 frames, each going on from the last 5 frames of the one before.",
        # Reference and four latent frames of 24 tokens, and the driving video's four of 6.
        "6 steps without guidance: 6 passes of the model per segment, 12 in all, over 144 tokens in the longest "
        "segment.",
    )
    assert "The model runs with all of it in memory, in about " in found.plan[-1]
    assert found.plan[-1].endswith("of 500.0 GB. Expect 12 passes.")
    tail = looked(scene, **shape, max_frames=19, steps=4, cfg=3.0)
    assert "2 segments: 1 of 13 frames and 1 of 13 frames" not in tail.plan[1]
    assert tail.plan[1].endswith("the one before; 2 at the end are cut off again.")
    assert tail.plan[2].startswith("4 steps with guidance (cfg 3): 8 passes of the model per segment, 16 in all")


def test_a_still_picture_and_a_turned_size_are_said():
    upright = golden(references=golden_scene(0).references.swapaxes(1, 2), reference_masks=None)
    found = looked(upright, max_frames=1)
    assert found.plan[0] == "A still picture of 64 x 96 pixels, turned as the reference is, from frame 0 of 9."
    assert "turned" not in looked(upright, max_frames=1, follow_orientation=False).plan[0]


def test_a_mask_of_the_other_mode_is_told():
    found = looked(golden(), mode="replacement")
    assert [w.split(" has a ")[1].split(",")[0] for w in found.warnings] == ["black background", "white background"]
    assert found.errors == []
    assert str(found).startswith("The sampler would run, with 2 warnings.")


@pytest.mark.parametrize(("level", "due"), [(200, True), (224, True), (228, False), (255, False)])
def test_colours_below_the_threshold_are_told(level, due):
    mask = np.stack([drawn({"blue": LEFT})] * 9)
    mask[:, 20:80, 90:114] = (level / 255, 0, 0)
    found = looked(golden(driving_mask=mask, reference_masks=None, driving=np.zeros_like(mask)))
    weak = [w for w in found.warnings if "too weak" in w]
    assert len(weak) == due
    if due:
        assert f"#{level:02X}0000 in frame 0" in weak[0]
        assert "225" in weak[0]


def test_a_mask_that_is_empty_in_some_frames_is_told_with_the_share():
    mask = golden_scene(0).driving_mask.copy()
    mask[6:] = 0
    found = looked(golden(driving_mask=mask))
    assert "3 of 9 frames (33.3 %; the first is frame 6)" in found.warnings[0]
    assert "blue is gone from frame 6 on" in found.warnings[1]


@pytest.mark.parametrize(("fps", "due"), [(16.0, False), (15.984, False), (30.0, True), (12.0, True)])
def test_another_rate_is_told(fps, due):
    assert any("Scail2ResampleFps" in warning for warning in looked(golden(), driving_fps=fps).warnings) == due


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 100}, "The width is 100 pixels"),
        ({"start_frame": 9}, "The start frame is 9"),
        ({"segment_length": 12}, "The segment length is 12 frames"),
        ({"steps": 0}, "The number of steps is 0"),
    ],
)
def test_settings_that_the_sampler_refuses_are_errors_beside_the_sheet(changes, said):
    found = looked(golden(), **changes)
    (error,) = found.errors
    assert error.startswith(said)
    assert str(found).startswith("The sampler would stop at these inputs.\n\nError: " + said)
    assert found.sheet.size
    assert not any("passes" in sentence for sentence in found.plan)


def test_pictures_that_the_sampler_refuses_are_errors_beside_the_sheet():
    nobody = golden(driving_mask=np.zeros_like(golden_scene(0).driving_mask))
    short = golden(driving_mask=golden_scene(0).driving_mask[:5])
    nan = golden(driving=np.full_like(golden_scene(0).driving, np.nan))
    for scene, said in ((nobody, "shows no person"), (short, "has 5 frames"), (nan, "not numbers")):
        found = looked(scene)
        assert said in found.errors[0]
        # As connected: reference, its mask, driving video, its mask.
        assert found.sheet.shape[0] == 12 + 4 * 294


def test_all_errors_that_do_not_hide_each_other_are_told():
    assert len(looked(golden(), width=100, steps=0).errors) == 2


def test_without_a_picture_the_error_is_raised():
    nothing = np.zeros((0, 64, 96, 3), np.float32)
    with pytest.raises(RequestError, match="has 0 frames"):
        looked(a_scene(references=nothing, driving=nothing))


def test_a_plain_mask_of_one_person_is_shown_and_not_told():
    masks = {name: getattr(golden_scene(0), name)[..., 2] * 1.0 for name in ("driving_mask", "reference_masks")}
    masks["reference_masks"] = masks["reference_masks"] * (golden_scene(0).reference_masks[..., 0] < 0.5)
    assert looked(golden(**masks)).findings == ()
    assert looked(golden(**masks), start_frame=9).sheet.shape[0] == 12 + 4 * 294


# Memory


def test_memory_is_predicted_for_the_files_that_are_connected(models):
    published, own = looked(golden()), looked(golden(), dit=models.dit, vae=models.vae)
    assert published.plan[-2].startswith("For model and vae as published; connect model and vae")
    needed = [float(p.plan[-1].split("in about ")[1].split()[0]) for p in (published, own)]
    # Text encoder and CLIP count as published in both; of them only a part is in memory at once.
    assert needed[0] > 30 > 5 > needed[1], "32 GB of weights as published, a tiny snapshot"
    assert not any("as published" in sentence for sentence in own.plan)
    assert "For vae as published" in looked(golden(), dit=models.dit).plan[-2]


def test_nothing_is_loaded(snapshot):
    store = ModelStore(snapshot, "auto")
    models = Models.of(store)
    looked(golden(), dit=models.dit, vae=models.vae)
    assert store.loaded == ()


def test_a_run_that_does_not_fit_is_an_error_for_ones_own_files_and_a_warning_otherwise(snapshot, monkeypatch):
    small = Models.of(ModelStore(snapshot, "auto", memory=10**8))
    assert "This run would need" in looked(golden(), dit=small.dit, vae=small.vae).errors[0]
    monkeypatch.setattr(planning, "memory_budget", lambda *_: 10**8)
    found = looked(golden())
    assert found.errors == []
    assert "With the model as published it would not fit. This run would need" in found.warnings[0]


def test_a_damaged_file_is_an_error(snapshot, tmp_path):
    for path in snapshot.path("dit").parent.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "dit.safetensors").unlink()
    (tmp_path / "dit.safetensors").write_bytes(b"not a model")
    broken = Models.of(ModelStore(Snapshot.open(tmp_path), "auto"))
    (error,) = looked(golden(), dit=broken.dit).errors
    assert "dit.safetensors" in error


def test_without_mlx_the_pictures_are_looked_at_all_the_same(monkeypatch):
    def missing():
        raise DependencyError("MLX is not installed.")

    monkeypatch.setattr(input_check, "require_mlx", missing)
    found = looked(golden())
    assert found.errors == ["MLX is not installed."]
    assert found.plan[0].startswith("9 frames of 96 x 64")


def test_cancel_stops_the_look():
    class Stop(Recorder):
        def check_cancelled(self):
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        check_inputs(pictures_of(golden()), SMALL, None, None, Stop())


# The node


def schema(node_id):
    (cls,) = (cls for cls in load_pack().NODES if cls.GET_SCHEMA().node_id == node_id)
    return cls, {item.id: item for item in cls.GET_SCHEMA().inputs}


def test_what_the_node_and_the_sampler_both_ask_has_one_default_and_one_meaning():
    (_, ours), (_, samplers) = schema("Scail2InputCheck"), schema("Scail2Sampler")
    assert ours.keys() <= samplers.keys()
    for name in ours.keys() - {"model", "vae", "driving_fps"}:
        assert ours[name].as_dict() == samplers[name].as_dict()
    assert ours["driving_fps"].default == samplers["driving_fps"].default
    assert ours["model"].optional
    assert ours["vae"].optional


def test_the_node_returns_and_shows_sheet_and_report(nodes):
    scene, (cls, inputs) = golden_scene(0), schema("Scail2InputCheck")
    model, _, _, vae = nodes["LoadScail2MLX"]({"snapshot": str(GOLDENS / "snapshot"), "precision": "auto"})
    widgets = {name: item.default for name, item in inputs.items() if hasattr(item, "default")}
    given = widgets | {
        "reference_image": torch.from_numpy(scene.references),
        "driving_video": torch.from_numpy(scene.driving),
        "driving_mask": torch.from_numpy(scene.driving_mask),
        "width": 96,
        "height": 64,
    }
    made = cls.execute(**given, model=model, vae=vae)
    sheet, report = made.args
    assert sheet.dtype == torch.float32
    # Reference, driving video and one plane of its mask.
    assert tuple(sheet.shape) == (1, 12 + 3 * 294, 2 * 12 + 3 * 384 + 2 * 6, 3)
    assert 0.9 < float(sheet.max()) <= 1
    assert report.startswith("The sampler would run, with 1 warning.\n\nWarning: There is no reference mask")
    assert "40 steps with guidance (cfg 5)" in report
    assert made.ui["text"] == [report]
    assert model.store.loaded == ()
