"""The command line as a script meets it: what it writes, what it says, and its exit codes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import FRAMES_BAR, GOLDENS, ROOT, Golden, golden_cases, golden_file

from mlx_backend.cli.main import main
from mlx_backend.interface.errors import RequestError
from mlx_backend.media.read import read_video

SNAPSHOT = GOLDENS / "snapshot"
INPUTS = ("reference", "driving", "reference_mask", "driving_mask")
# Put first on PYTHONPATH, this hides torch, as it is on a Mac without it.
NO_TORCH = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """The pictures of golden run 0 as uint8 arrays."""
    folder = tmp_path_factory.mktemp("inputs")
    golden = Golden(golden_file("pipeline"), 0)
    for name in INPUTS:
        np.save(folder / f"{name}.npy", golden(name))
    (folder / "sitecustomize.py").write_text(NO_TORCH)
    return folder


def arguments(inputs: Path, output: Path, *more: object, **changes: object) -> list[str]:
    """Return a whole `generate` command of one cheap step; `changes` replace inputs, None leaves one out."""
    given = {"model": SNAPSHOT, "output": output} | {name: inputs / f"{name}.npy" for name in INPUTS} | changes
    options = [
        part for name, value in given.items() if value is not None for part in (f"--{name.replace('_', '-')}", value)
    ]
    return [
        str(part)
        for part in ("generate", *options, "--no-cache", "--width", 96, "--height", 64, "--steps", 1, "--cfg", 1, *more)
    ]


def run(inputs: Path, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlx_backend", *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(inputs)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def refused(capsys, command: list[str], *words: str) -> None:
    """Assert that the command ends with code 2 and one sentence with these words on stderr, and wrote nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        try:
            code = main(command)
        except SystemExit as error:  # argparse's way
            code = error.code
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert said.err.endswith("\n")
    assert said.err.count("\n") == 1, said.err
    assert said.err[:-1].endswith((".", ")"))
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


@pytest.fixture
def output(tmp_path):
    """A folder for outputs, in which nothing must be left."""
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder
    assert [path.name for path in folder.iterdir()] == []


# Runs


def test_a_golden_run_through_arrays(inputs, tmp_path):
    case = golden_cases("pipeline")[0]
    settings = ("--steps", case["steps"], "--cfg", case["guide"], "--shift", case["shift"], "--solver", case["solver"])
    settings += ("--seed", case["seed"], "--prompt", case["prompt"], "--negative", case["negative"])
    done = run(inputs, *arguments(inputs, tmp_path / "o.npy", *settings, "--mode", "animation"))
    assert done.returncode == 0, done.stderr
    frames = np.load(tmp_path / "o.npy")
    assert frames.dtype == np.float32
    assert np.abs(frames - golden_file("pipeline")["0.frames"].astype(np.float32)).max() < FRAMES_BAR
    assert done.stdout == ""
    assert "sampling 3/3" in done.stderr
    assert "warning" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.npy", "scail2_resume"]


def test_finished_segments_are_kept_beside_the_output_unless_it_is_said_otherwise(inputs, tmp_path, capsys):
    frames = []
    for options, folder, again in (
        (["--no-resume"], None, False),
        ([], tmp_path / "scail2_resume", False),
        ([], tmp_path / "scail2_resume", True),
        (["--resume", tmp_path / "kept"], tmp_path / "kept", False),
    ):
        assert main(arguments(inputs, tmp_path / "o.npy", "--max-frames", 1, *options)) == 0
        assert ("made before" in capsys.readouterr().err) == again
        assert folder is None or [path.suffix for path in folder.iterdir()] == [".safetensors"]
        frames.append(np.load(tmp_path / "o.npy"))
        if folder is None:
            assert [path.name for path in tmp_path.iterdir()] == ["o.npy"]
    assert all(np.array_equal(made, frames[0]) for made in frames)  # the same program twice: no tolerance is due
    with pytest.raises(SystemExit):
        main(arguments(inputs, tmp_path / "o.npy", "--resume", tmp_path, "--no-resume"))


def test_a_published_model_is_chosen_by_its_tier(capsys, tmp_path):
    assert main(["download", "q5", str(tmp_path / "models")]) == 2
    assert "There is no published model 'q5': choose one of q4, q8, bf16." in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_every_medium_in_and_out(inputs, tmp_path, capsys):
    """Folder and picture in, video out; that video in, one picture out; folder out."""
    golden = Golden(golden_file("pipeline"), 0)
    for name in ("driving", "driving_mask"):
        (tmp_path / name).mkdir()
        for i, pixels in enumerate(golden(name)):
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    Image.fromarray(golden("reference")[0]).save(tmp_path / "reference.png")
    Image.fromarray(golden("reference_mask")[0]).save(tmp_path / "mask.png")
    pictures = {"reference": tmp_path / "reference.png", "reference_mask": tmp_path / "mask.png"}
    folders = {name: tmp_path / name for name in ("driving", "driving_mask")}

    assert main(arguments(inputs, tmp_path / "o.mp4", "--fps", 24, **pictures, **folders)) == 0
    clip = read_video(tmp_path / "o.mp4")
    assert clip.frames.shape == (9, 64, 96, 3)
    assert clip.fps == 24

    video = {"driving": tmp_path / "o.mp4", "driving_mask": None}
    assert main(arguments(inputs, tmp_path / "o.png", "--max-frames", 1, **video)) == 0
    with Image.open(tmp_path / "o.png") as picture:
        assert picture.size == (96, 64)

    assert main(arguments(inputs, tmp_path / "copy.mov", "--start-frame", 7, **video)) == 0
    assert read_video(tmp_path / "copy.mov").fps == 24  # the driving video's

    for _ in range(2):  # a folder of frames is replaced
        assert main(arguments(inputs, tmp_path / "o", "--max-frames", 2)) == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["frame_00001.png", "frame_00002.png"]
    assert capsys.readouterr().out == ""


def test_a_warning_does_not_stop_a_run(inputs, tmp_path):
    command = arguments(inputs, tmp_path / "o.npy", "--mode", "replacement", "--max-frames", 1, reference_mask=None)
    done = run(inputs, *command)
    assert done.returncode == 0
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert "no reference mask" in warnings[0]
    assert "black background" in warnings[1]
    assert "'driving_mask'" in warnings[1]
    assert np.load(tmp_path / "o.npy").shape == (1, 64, 96, 3)


# Errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--width", 100), ("width", "100", "32")),
        (("--height", -32), ("height", "-32", "32")),
        (("--width", "wide"), ("--width", "'wide'")),
        (("--steps", 0), ("steps", "0")),
        (("--solver", "ddim"), ("'ddim'", "unipc, dpm++, euler")),
        (("--mode", "both"), ("'both'", "animation, replacement")),
        (("--cfg", "nan"), ("cfg", "nan")),
        (("--shift", 0), ("shift",)),
        (("--segment-length", 80), ("80", "77 or 81")),
        (("--segment-overlap", 81), ("81", "smaller")),
        (("--start-frame", 9), ("start frame is 9", "9 frames")),
        (("--max-frames", -1), ("-1",)),
        (("--tile-size", 100), ("100", "128")),
        (("--tile-size", 128, "--tile-overlap", 0), ("overlap of 0",)),
        (("--precision", "half"), ("'half'", "auto, float32")),
        (("--sped", 3), ("--sped", "--help")),
        (("--seed", 1.5), ("--seed", "1.5")),
        (("--prompt",), ("--prompt", "expected one argument")),
    ],
)
def test_a_bad_option_is_refused(options, words, inputs, output, capsys):
    refused(capsys, arguments(inputs, output / "o.npy", *options), *words)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("o.gif", (), ("'.gif'", ".mp4", ".npy")),
        ("gone/o.npy", (), ("gone", "does not exist")),
        ("o.png", (), ("9 frames", "one picture")),
        ("o.mp4", ("--fps", 0), ("0.0 frames per second", "above 0")),
        ("o.mp4", ("--fps", -24), ("-24.0 frames per second",)),
        ("o.mp4", ("--fps", "nan"), ("nan frames per second",)),
        ("o.mkv", ("--fps", 1e12), ("at most 1000",)),
        ("o.mp4", ("--fps", "fast"), ("--fps", "'fast'")),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(name, options, words, inputs, output, capsys):
    refused(capsys, arguments(inputs, output / name, *options), *words)


def test_inputs_are_not_overwritten(inputs, output, tmp_path, capsys):
    before = (inputs / "driving.npy").read_bytes()
    refused(capsys, arguments(inputs, inputs / "driving.npy"), "would replace", "--driving", "another output")
    assert (inputs / "driving.npy").read_bytes() == before
    frames = tmp_path / "frames"
    frames.mkdir()
    Image.new("RGB", (96, 64)).save(frames / "frame_00001.png")
    for driving in (frames, frames / "frame_00001.png"):
        command = arguments(inputs, frames, driving=driving, driving_mask=None)
        refused(capsys, command, "would replace", "--driving")
    assert [path.name for path in frames.iterdir()] == ["frame_00001.png"]


def saved(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "changed.npy", array)
    return folder / "changed.npy"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("driving", lambda a: a[:0], ("0 frames",)),
        ("driving_mask", lambda a: a[:8], ("8 frames", "driving video 9")),
        ("driving_mask", lambda a: a * 0, ("driving mask", "no person", "9 frames")),
        ("driving_mask", lambda a: a[..., 0], ("[9, 64, 96]",)),
        ("driving", lambda a: a.astype(np.float32) * np.nan, ("driving video", "NaN", "frame 0")),
        ("driving", lambda a: a.astype(np.int64), ("int64", "uint8")),
        ("driving", lambda a: a.repeat(2, axis=3), ("[9, 64, 96, 6]",)),
        ("reference", lambda a: a[:, :0], ("[1, 0, 96, 3]",)),
        ("reference_mask", lambda a: a.repeat(2, axis=0), ("2 reference masks", "1 reference image")),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, change, words, inputs, output, tmp_path, capsys):
    array = saved(tmp_path, change(np.load(inputs / f"{name}.npy")))
    refused(capsys, arguments(inputs, output / "o.npy", **{name: array}), *words)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.mp4", b"", ("a.mp4", "damaged")),
        ("a.mp4", b"<html>", ("a.mp4", "damaged")),
        ("a.png", b"\x89PNG\r\n\x1a\n", ("a.png", "not a picture")),
        ("a.npy", b"\x93NUMPY", ("a.npy", "not a plain NumPy array")),
        ("a.txt", b"frames", ("'.txt'", ".npy")),
        ("a", b"frames", ("extension ''",)),
        ("gone.mp4", None, ("no file or folder", "gone.mp4")),
        ("x" * 300, None, ("too long",)),
    ],
)
def test_media_that_cannot_be_read_are_refused(name, content, words, inputs, output, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for role in ("driving", "reference_mask"):
        refused(capsys, arguments(inputs, output / "o.npy", **{role: tmp_path / name}), *words)


def test_a_model_that_cannot_be_used_is_refused(inputs, output, tmp_path, capsys):
    command = arguments(inputs, output / "o.npy", model=tmp_path / "gone")
    refused(capsys, command, "gone is not a folder")
    refused(capsys, arguments(inputs, output / "o.npy", model=tmp_path), "no config.json")
    for path in SNAPSHOT.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "clip.safetensors").unlink()
    refused(capsys, arguments(inputs, output / "o.npy", model=tmp_path), "lacks clip.safetensors")
    (tmp_path / "clip.safetensors").write_bytes((SNAPSHOT / "clip.safetensors").read_bytes()[:-9])
    refused(capsys, arguments(inputs, output / "o.npy", model=tmp_path), "clip.safetensors has", "incomplete")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ("COMMAND",)),
        (["animate"], ("'animate'", "generate")),
        (["generate"], ("--output",)),
        (["inspect"], ("PATH",)),
        (["inspect", "nowhere/at.all"], ("nowhere/at.all does not exist",)),
        (["inspect", "LICENSE"], ("LICENSE", "not a safetensors file")),
        (["inspect", "docs"], ("docs has no config.json",)),
        (["inspect", str(SNAPSHOT / "config.json")], ("config.json", "not an index of safetensors files")),
        (["demo", "--output", "pyproject.toml"], ("pyproject.toml cannot be made",)),
        (["demo", "--output", "pyproject.toml/below"], ("pyproject.toml/below cannot be made",)),
    ],
)
def test_a_bad_command_is_refused(command, words, capsys):
    refused(capsys, command, *words)


@pytest.mark.parametrize("missing", ["reference", "driving"])
def test_what_a_model_needs_is_asked_for(missing, inputs, output, capsys):
    options = {f"{missing}_mask": None, missing: None}
    refused(capsys, arguments(inputs, output / "o.npy", **options), f"there is no {missing} one", f"--{missing}")


def test_an_error_in_a_process_of_its_own(inputs, output):
    """The same without pytest around it: no warning, no progress, no traceback beside the sentence."""
    done = run(inputs, *arguments(inputs, output / "o.npy", driving_mask=inputs / "reference_mask.npy"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "driving mask has 1 frame and the driving video 9" in done.stderr


def test_interrupting_leaves_the_finished_segment_alone(inputs, output, capsys, monkeypatch):
    from mlx_backend.pipelines import generate

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "decode_latents", interrupted)
    assert main(arguments(inputs, output / "o.mp4")) == 130
    assert capsys.readouterr().err.endswith("Stopped; nothing was written but what the next try goes on from.\n")
    kept = output / "scail2_resume"
    assert [path.suffix for path in kept.iterdir()] == [".safetensors"]  # it was sampled
    shutil.rmtree(kept)


def test_nan_from_the_model_fails_with_its_step(inputs, output, capsys, monkeypatch):
    from mlx_backend.models.scail2 import Scail2Model

    monkeypatch.setattr(Scail2Model, "__call__", lambda self, x, *arguments: x * float("nan"))
    assert main(arguments(inputs, output / "o.mp4", "--steps", 4)) == 1
    assert "step 1 of 4" in capsys.readouterr().err.splitlines()[-1]


# Help and inspect


@pytest.mark.parametrize("command", [[], ["generate"], ["download"], ["inspect"], ["demo"]])
def test_help_exits_with_0(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr()
    assert "usage: mlx_backend" in said.out
    assert said.err == ""


@pytest.mark.parametrize("option", ["fps", "cfg", "negative", "driving-mask", "segment-overlap", "output"])
def test_help_names_the_options(option, capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    assert f"--{option} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("snapshot/dit.safetensors", ("a SCAIL-2 diffusion transformer", "91 tensors (91 BF16)")),
        ("snapshot/vae.safetensors", ("a Wan 2.1 VAE", "194 tensors (194 F32)")),
        ("snapshot/t5_encoder.safetensors", ("a UMT5 text encoder", "22 tensors")),
        ("snapshot/clip.safetensors", ("a CLIP visual tower", "32 tensors")),
        ("pipeline.safetensors", ("does not know",)),
        ("masks.safetensors", ("does not know",)),
        (
            "snapshot",
            ("a turnkey SCAIL-2 snapshot", "SCAIL-2 diffusion", "Wan 2.1 VAE", "UMT5", "CLIP visual", "the tokenizer"),
        ),
    ],
)
def test_inspect_says_what_a_path_is(path, words, capsys):
    assert main(["inspect", str(GOLDENS / path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(str(GOLDENS / path))
    for word in words:
        assert word in said.out


def test_inspect_needs_no_mlx(inputs):
    """And the module runs as a program."""
    done = run(inputs, "inspect", SNAPSHOT)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 6
    code = "import sys; sys.modules['mlx'] = None; from mlx_backend.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "inspect", str(SNAPSHOT)]
    hidden = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (hidden.returncode, hidden.stdout) == (0, done.stdout)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.8", ("a.safetensors", 0.8)),
        ("folder/b.pt:-1", ("folder/b.pt", -1.0)),
    ],
)
def test_a_lora_is_a_file_and_a_strength(text, expected):
    from mlx_backend.cli.generate import parse_lora

    request = parse_lora(text, allow_unknown=False)
    assert (str(request.path), request.strength) == expected
    with pytest.raises(RequestError, match="no number"):
        parse_lora("a.pt:much", allow_unknown=False)
