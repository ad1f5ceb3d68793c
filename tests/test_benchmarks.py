"""Every measurement runs, at a toy size: what it prints is complete. Nothing here looks at timings."""

import importlib
import re
import sys
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pytest
from support import GOLDENS, ROOT

from training import evaluate
from training.faults import FAULTS

SNAPSHOT = str(GOLDENS / "snapshot")
SCRIPTS = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if 'if __name__ == "__main__"' in path.read_text("utf-8")
)
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?\b")


@dataclass(frozen=True)
class Toy:
    """A command that takes seconds, and how the rows begin that hold its numbers."""

    arguments: str
    rows: tuple[str, ...]


NODES = ("LoadScail2MLX", "Scail2T5Encode", "Scail2ClipEncode", "Scail2Sampler", "WanVaeTiledDecode")
WAYS = ("bf16", "q8", "q6", "q5", "q4, groups of 64", "q4, groups of 32", "mixed")
VAE = f"--weights {SNAPSHOT}/vae.safetensors --width 32 --height 32"
# By script, in the order in which they run; {} is a folder of the test's own.
TOYS = {
    "campaign": (
        Toy("kills --count 1", ("kills, download",)),
        Toy("mutations --count 20", ("mutations, safetensors", "mutations, png", "mutations, mp4")),
        Toy("long_run --count 1", ("long run",)),
    ),
    "clip_memory": (
        Toy(
            f"{SNAPSHOT} --clip-size 64 64 --clip-frames 10 20 --size 32 32 --frames 5",
            ("10 frames of 64x64", "20 frames of 64x64"),
        ),
    ),
    "cpu_attention": (
        Toy("--rows 8 --tokens 16 --rounds 1", ("MLX's own", "products", "the same", "queries", "(softmax", "(exp")),
    ),
    "drift": (
        Toy(
            f"--snapshot {SNAPSHOT} --segments 2 --steps 1 --side 32 --only pixels,lab,running latents,latent,running",
            ("| pixels, lab, running", "| latents, latent, running", "| the clip"),
        ),
    ),
    "full_run": (Toy(f"{SNAPSHOT} --size 32", (*NODES, "peak resident")),),
    "full_size": (
        Toy(f"make {{}}/dense --dense --rest --like {SNAPSHOT}", ("bytes on disk", "seconds", "clip", "t5", "vae")),
        Toy(f"make {{}}/packed --like {SNAPSHOT}", ("bytes on disk", "seconds")),
        Toy("run {}/packed", ("weights, bytes", "MLX peak", "load, seconds", "one pass", "peak resident beyond")),
        Toy("convert {}/dense {}/converted", ("bytes of the source", "seconds", "peak resident")),
    ),
    "head_groups": (Toy("--dim 64 --heads 2 --ffn 64 --tokens 32 --rounds 1 --groups 1 2", ("1 groups", "2 groups")),),
    "quantisation": (Toy("--dim 128 --layers 1", ("tiny", "drawn", *WAYS)),),
    "step_cache": (Toy("--steps 3 --width 32 --height 32 --frames 5 --quick", ("off", "easycache", "magcache")),),
    "torch_block": (Toy("--dim 128 --tokens 32 64 --rounds 1", ("32", "64", "2.00 times the tokens")),),
    "vae": (
        Toy(f"{VAE} --rounds 1 --part time", ("encode, mlx", "decode, mlx")),
        Toy(
            f"{VAE} --part memory --directions decode", ("decode, mlx, 5", "decode, mlx, 9", "decode, mlx tiled", "by")
        ),
    ),
}


def run(module, arguments, capsys, monkeypatch):
    """Return what a script prints, run in this process as `python -m MODULE ARGUMENTS` would."""
    monkeypatch.setattr(sys, "argv", [module, *arguments.split()])
    importlib.import_module(module).main()
    return capsys.readouterr().out


def rows_of(said, start):
    """Return what follows a row's beginning, of every row that has it."""
    return [line.strip().removeprefix(start) for line in said.splitlines() if line.strip().startswith(start)]


def test_every_script_has_a_toy_size():
    assert list(TOYS) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_tells_what_it_ran_on_and_a_number_in_every_row(script, tmp_path, capsys, monkeypatch):
    for toy in TOYS[script]:
        arguments = toy.arguments.replace("{}", str(tmp_path))
        said = run(f"benchmarks.{script}", arguments, capsys, monkeypatch)
        assert f"$ python -m benchmarks.{script} {arguments}\n" in said
        assert f"mlx {version('mlx')}, Python {sys.version.split()[0]}" in said
        for start in toy.rows:
            rows = rows_of(said, start)
            assert rows and all(NUMBER.search(row) for row in rows), (start, said)


def test_the_vae_is_not_compared_without_diffusers(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="--weights FILE"):
        run("benchmarks.vae", "", capsys, monkeypatch)


# The judge of the small model


def test_a_perfect_result_passes_every_measure_and_hides_every_fault(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate.Judge, "frames", lambda self, made: made.target.pictures.astype(np.float32))
    said = run("training.evaluate", f"--clips 1 --pictures {tmp_path}/clips.png", capsys, monkeypatch)
    told = said.splitlines()
    unseen = [line for line in told if line.startswith("FAIL")]
    assert [re.match(r"FAIL fault '(\w+)'.*: unseen", line)[1] for line in unseen] == list(FAULTS)
    assert {line.split()[0] for line in told} == {"ok", "FAIL"}
    assert (tmp_path / "clips.png").is_file()
