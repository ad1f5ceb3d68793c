"""The report of a run: what it says, that it says it truly, and where it is written."""

import json
import logging
import sys
import threading
import tomllib
import types
from dataclasses import fields
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from support import FRAMES_BAR, GOLDENS, ROOT, Recorder, a_sampling, golden_cases, golden_file
from test_cli import arguments, inputs  # noqa: F401 - a fixture
from test_nodes import wired

from demo.pack import load_pack
from mlx_backend.cli.main import main
from mlx_backend.interface.errors import Cancelled
from mlx_backend.interface.events import Listener, Progress
from mlx_backend.interface.latent_space import WAN21
from mlx_backend.interface.requests import LoraRequest, SamplingSettings, Scene
from mlx_backend.interface.segments import plan_segments
from mlx_backend.interface.version import VERSION
from mlx_backend.members.member import NoPictures, PreparedRun
from mlx_backend.members.scail2 import MEMBER
from mlx_backend.pipelines.generate import generate
from mlx_backend.pipelines.kept_files import keep_new_file
from mlx_backend.pipelines.pictures import PictureMaterial, prepare
from mlx_backend.pipelines.recording import Recording, report_run
from mlx_backend.pipelines.run import Run, Session
from mlx_backend.pipelines.store import Handle, Models, ModelStore
from mlx_backend.pipelines.text import TextFeatures
from mlx_backend.weights.checkpoints.identity import file_identity
from mlx_backend.weights.checkpoints.snapshot import Snapshot

SNAPSHOT = GOLDENS / "snapshot"
MEGABYTES = 1 << 20


def at(phase, done=0, segment=0):
    return Progress(phase=phase, done=done, total=10, segment=segment)


# The listener


class Everything(Recorder):
    """Keeps each call that it gets."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def progress(self, event):
        self.calls.append(("progress", event))

    def warn(self, message):
        self.calls.append(("warn", message))

    def note(self, message):
        self.calls.append(("note", message))

    def check_cancelled(self):
        raise Cancelled("stopped by the test")

    @property
    def wants_preview(self):
        return True

    def preview(self, latent):
        self.calls.append(("preview", latent))


def test_all_that_a_listener_is_told_is_passed_on():
    inner = Everything()
    recording = Recording(inner)
    event, latent = at("sampling", done=3), np.zeros((16, 1, 2, 2))
    told = [("progress", event), ("warn", "careful"), ("note", "by the way"), ("preview", latent)]
    for name, value in told:
        getattr(recording, name)(value)
    assert all(call == (name, value) for call, (name, value) in zip(inner.calls, told, strict=True))
    assert recording.wants_preview is True
    with pytest.raises(Cancelled):
        recording.check_cancelled()
    assert (recording.warnings, recording.notes) == (["careful"], ["by the way"])


def test_nothing_of_a_listener_is_left_out():
    wanted = {name for name in vars(Listener) if not name.startswith("_")}
    assert wanted <= set(vars(Recording))


def test_a_phase_gathers_the_seconds_of_its_segments():
    now = [100.0]
    recording = Recording(Recorder(), clock=lambda: now[0])
    for seconds, event in ((1, at("loading dit")), (2, at("sampling")), (4, at("sampling", 5)), (8, at("encoding"))):
        now[0] += seconds
        recording.progress(event)
    now[0] += 16
    recording.progress(at("sampling", 6, segment=2))
    now[0] += 32
    expected = {"preparing": 1, "loading dit": 2, "sampling": 4 + 8 + 32, "encoding": 16}
    assert {phase.phase: phase.seconds for phase in recording.phases()} == expected
    assert {phase.phase: phase.seconds for phase in recording.phases()} == expected  # asking costs nothing
    now[0] += 64
    assert {phase.phase: phase.seconds for phase in recording.phases()}["sampling"] == expected["sampling"] + 64


def test_a_phase_has_its_own_peak_and_counts_what_is_held():
    recording = Recording(Recorder())
    before = mx.get_active_memory()

    def held(megabytes):
        array = mx.ones((megabytes * MEGABYTES,), mx.uint8)
        mx.eval(array)
        return array

    recording.progress(at("low"))
    kept = held(4)
    recording.progress(at("high"))
    del kept
    held(64)
    recording.progress(at("idle"))
    kept = held(8)
    recording.progress(at("idle too"))
    recording.progress(at("high"))
    peaks = {phase.phase: phase.peak_bytes - before for phase in recording.phases()}
    del kept
    # MLX rounds buffers up to pages; 1 MB is far above that and far below the differences.
    for phase, megabytes in (("low", 4), ("high", 64), ("idle", 8), ("idle too", 8)):
        assert abs(peaks[phase] - megabytes * MEGABYTES) < MEGABYTES, phase


# The report


def golden_report(models, index):
    from support import golden_prompts, golden_scene, golden_settings

    scene, settings = golden_scene(index), golden_settings(index)
    recording = Recording(Recorder())
    session = Session(listener=recording)
    run = prepare(models, golden_prompts(index), scene, settings, session)
    return generate(run, None, session), report_run(run, recording), scene, settings


def test_a_run_in_segments_is_reported_and_is_the_same_run(models):
    frames, report, scene, settings = golden_report(models, 3)
    expected = golden_file("pipeline")["3.frames"].astype(np.float32)
    assert np.abs(frames - expected).max() < FRAMES_BAR
    case = golden_cases("pipeline")[3]
    assert report.run == {
        "mode": "replacement" if case["replace"] else "animation",
        "width": 96,
        "height": 64,
        "frames": 24,
        "segments": 3,
        "seed": case["seed"],
    }
    assert report.prompts == {"positive": case["prompt"], "negative": case["negative"]}
    phases = [phase.phase for phase in report.phases]
    assert len(phases) == len(set(phases))
    assert {"preparing", "sampling", "encoding the frames to continue from", "decoding"} <= set(phases)
    assert all(phase.seconds >= 0 and phase.peak_bytes >= 0 for phase in report.phases)
    assert any("passes of the model were run" in note for note in report.notes)


def test_every_setting_is_in_it_and_all_of_it_is_json(models):
    _, report, scene, settings = golden_report(models, 2)
    read = json.loads(str(report))
    assert set(read["settings"]) == {field.name for field in fields(SamplingSettings)}
    assert read["settings"]["steps"] == settings.steps
    assert read["settings"]["economy"]["step_cache"] == "off"
    absent = {"reference_masks", "driving_mask", "image", "last_image"}
    assert set(read["scene"]) | set(read["pictures"]) | absent == {field.name for field in fields(Scene)}
    assert read["pictures"]["references"] == "1 of 96x64"
    assert read["made_with"]["pack"] == VERSION
    assert read["made_with"]["mlx"] == mx.__version__


def test_the_model_is_told_by_its_numbers_and_without_its_folders(models):
    _, report, *_ = golden_report(models, 2)
    assert list(report.model) == ["dit", "t5_encoder", "clip", "vae"]
    for component, said in report.model.items():
        path = SNAPSHOT / f"{component}.safetensors"
        assert said["file"] == path.name
        assert len(said["digest"]) == 16
        assert file_identity(path).startswith(said["digest"])
    assert str(SNAPSHOT) not in str(report)


def one_run(*loras):
    """A still picture that was made with a DiT of these LoRAs, from features of nobody knows which words."""
    models = Models(Handle(ModelStore(Snapshot.open(SNAPSHOT), "float32"), "dit", loras))
    prepared = PreparedRun(NoPictures((96, 64), WAN21), None, plan_segments(1, 81, 5), ((16, 1, 8, 12),))
    features = TextFeatures(np.zeros((1, 64), np.float32), np.zeros((1, 64), np.float32))
    return Run(
        models=models,
        material=PictureMaterial(MEMBER, prepared, features),
        settings=a_sampling(),
        how=None,
        facts={"scene": {"mode": "animation"}, "pictures": {}},
    )


def test_loras_are_in_it_and_a_file_that_is_gone_costs_no_result(tmp_path, caplog):
    there, gone = tmp_path / "lightx2v.safetensors", tmp_path / "gone.safetensors"
    there.write_bytes(b"numbers")
    loras = (LoraRequest(there, 0.8), LoraRequest(gone, -1.0))
    recording = Recording(Recorder())
    with caplog.at_level(logging.WARNING, "scail2_mlx"):
        report = report_run(one_run(*loras), recording)
    assert report.loras == (
        {"file": there.name, "digest": file_identity(there)[:16], "strength": 0.8},
        {"file": gone.name, "digest": None, "strength": -1.0},
    )
    assert report.prompts is None
    assert report.model["dit"]["precision"] == "float32"
    (warning,) = report.warnings
    assert warning.startswith("gone.safetensors could not be read again")
    assert warning in caplog.text


def test_the_users_name_is_left_out_of_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/Users/somebody")
    recording = Recording(Recorder())
    recording.note("Segment 1 was taken from /Users/somebody/ComfyUI/output.")
    report = report_run(one_run(), recording)
    assert report.notes == ("Segment 1 was taken from ~/ComfyUI/output.",)


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


# The nodes


@pytest.fixture(scope="module")
def report(nodes):
    """The sampler's report of the cheapest golden run."""
    return wired(nodes, 2)[2]


def test_the_sampler_reports_the_prompts_and_the_encoder(report):
    read, case = json.loads(report), golden_cases("pipeline")[2]
    assert read["prompts"] == {"positive": case["prompt"], "negative": case["negative"]}
    assert list(read["model"]) == ["dit", "t5_encoder", "clip", "vae"]
    assert read["run"]["frames"] == golden_file("pipeline")["2.frames"].shape[0]
    assert "sampling" in [phase["phase"] for phase in read["phases"]]


def test_the_report_is_the_samplers_last_output():
    """Links of saved workflows count outputs."""
    schema = next(cls.GET_SCHEMA() for cls in load_pack().NODES if cls.GET_SCHEMA().node_id == "Scail2Sampler")
    assert [output.id for output in schema.outputs] == ["latent", "report"]


def written(nodes, report, prefix="video/scail2"):
    return nodes["Scail2Report"]({"report": report, "filename_prefix": prefix})


def test_outside_comfyui_reports_are_numbered_in_the_output_folder(nodes, report, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, "scail2_mlx"):
        assert written(nodes, report) == (report,)
    written(nodes, report)
    folder = tmp_path / "output" / "video"
    assert sorted(path.name for path in folder.iterdir()) == ["scail2_report_00001.json", "scail2_report_00002.json"]
    assert (folder / "scail2_report_00001.json").read_text(encoding="utf-8") == report
    case = golden_cases("pipeline")[2]
    assert f"of 96x64 (animation) in 1 segment: {case['solver']}, {case['steps']} steps" in caplog.text
    assert "sampling: " in caplog.text


def test_in_comfyui_the_report_takes_the_next_videos_number(nodes, report, tmp_path, monkeypatch):
    asked = []

    def place(prefix, output, width, height):
        asked.append((prefix, output, width, height))
        (tmp_path / "video").mkdir(exist_ok=True)
        return str(tmp_path / "video"), "clip", 7, "video", prefix

    folder_paths = types.SimpleNamespace(get_output_directory=lambda: str(tmp_path), get_save_image_path=place)
    monkeypatch.setitem(sys.modules, "folder_paths", folder_paths)
    taken = tmp_path / "video" / "clip_report_00007.json"
    taken.parent.mkdir()
    taken.write_text("mine")
    written(nodes, report, "video/clip")
    assert asked == [("video/clip", str(tmp_path), 96, 64)]
    assert taken.read_text() == "mine"
    assert (tmp_path / "video" / "clip_report_00008.json").read_text(encoding="utf-8") == report


@pytest.mark.parametrize(
    "text", ["", "a fox dances", "[1, 2]", "{}", '{"run": {"width": 96, "height": 64}}', "[" * 10**5]
)
def test_another_text_is_refused(text, nodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="is no report of a SCAIL-2 run: connect"):
        written(nodes, text)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("prefix", "words"), [("", "names no file"), ("..", "names no file"), ("../x", "leaves")])
def test_a_prefix_that_is_none_is_refused(prefix, words, nodes, report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=words):
        written(nodes, report, prefix)
    assert not list(tmp_path.iterdir())


# Files


def test_of_many_that_write_at_once_each_gets_its_own_name(tmp_path):
    paths = [tmp_path / f"{n}.json" for n in range(8)]
    made = []
    writers = [
        threading.Thread(target=lambda i=i: made.append((i, keep_new_file(paths, lambda f: f.write(b"%d" % i)))))
        for i in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(path.name for _, path in made) == [path.name for path in paths]
    assert all(path.read_bytes() == b"%d" % i for i, path in made)
    with pytest.raises(FileExistsError):
        keep_new_file(paths, lambda file: file.write(b"more"))


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        keep_new_file([tmp_path / "a.json"], fail)
    assert not list(tmp_path.iterdir())


# The command line


def test_the_command_writes_it_beside_the_output_and_overwrites_none(inputs, tmp_path):  # noqa: F811
    output = tmp_path / "clip.npy"
    for _ in range(2):
        assert main(arguments(inputs, output, "--report", "--prompt", "a fox", "--no-resume")) == 0
    names = ["clip.npy", "clip.npy.report.2.json", "clip.npy.report.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    read = json.loads(Path(f"{output}.report.json").read_text(encoding="utf-8"))
    assert read["prompts"] == {"positive": "a fox", "negative": ""}
    assert read["run"]["frames"] == len(np.load(output))


def test_without_the_option_there_is_none(inputs, tmp_path):  # noqa: F811
    assert main(arguments(inputs, tmp_path / "clip.npy", "--no-resume")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["clip.npy"]
