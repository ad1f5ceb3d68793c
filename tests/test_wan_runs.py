"""Whole runs of the Wan family through the command line, against the published programs at tiny sizes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from wan_folders import Folders
from wan_weights import WAN

from mlx_backend.cli.main import main
from mlx_backend.pipelines import generate
from mlx_backend.pipelines.store import ModelStore

BAR = 6e-4  # frames; those of some files are float16, which alone is 2.5e-4
EXACT = 1e-4  # frames of float32 files; the published programs and diffusers differ by 8e-6 from them
CASES = json.loads((WAN / "cases.json").read_text(encoding="utf-8"))
EVERY = 4  # of `pipeline`, only every fourth row and column is stored
AREAS = {3072: (64, 48), 4096: (64, 64)}  # pixels to the size that is asked for


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    return Folders(tmp_path_factory.mktemp("wan"))


class Case:
    """One run of a golden file: what is asked for, and what comes out."""

    def __init__(self, file: str, index: int):
        self.facts = CASES[file][index]
        self.tensors = {
            name.split(".", 1)[1]: array
            for name, array in load_file(WAN / f"{file}.safetensors").items()
            if name.startswith(f"{index}.")
        }

    def command(self, model: Path, folder: Path, *, size: tuple[int, int]) -> list[object]:
        """Return the `generate` command, whose inputs lie in a folder and whose output is out.npy there."""
        facts = self.facts
        high, low = facts["guide"][::-1] if isinstance(facts["guide"], list) else (facts["guide"], None)
        words: list[object] = ["generate", "--model", model, "--output", folder / "out.npy", "--no-cache"]
        words += ["--no-resume"]
        words += ["--prompt", facts["prompt"], "--frames", facts["frames"], "--steps", facts["steps"], "--cfg", high]
        words += ["--shift", facts["shift"], "--solver", facts["solver"], "--precision", "float32"]
        words += ["--width", size[0], "--height", size[1]]
        words += [] if low is None else ["--cfg-low", low]
        words += [] if facts["negative"] is None else ["--negative", facts["negative"]]
        words += ["--seed", facts["seed"]] if "seed" in facts else []
        if "noise" in self.tensors:
            np.save(folder / "noise.npy", self.tensors["noise"])
            words += ["--noise", folder / "noise.npy"]
        for name, option in (("image", "--image"), ("last_image", "--last-image")):
            if name in self.tensors:
                Image.fromarray(self.tensors[name]).save(folder / f"{name}.png")
                words += [option, folder / f"{name}.png"]
        return words


def made(words: list[object], folder: Path) -> np.ndarray:
    assert main([str(word) for word in words]) == 0
    return np.load(folder / "out.npy")


@pytest.mark.parametrize("index", range(len(CASES["loops"])))
def test_a_run_from_given_noise_is_the_published_one(folders, tmp_path, index):
    case = Case("loops", index)
    model = folders("original", case.facts["kind"])
    frames = made(case.command(model, tmp_path, size=case.facts["size"]), tmp_path)
    assert np.abs(frames - case.tensors["frames"]).max() < EXACT


@pytest.mark.parametrize("index", range(len(CASES["pipeline"])))
def test_a_run_from_a_seed_is_the_published_one(folders, tmp_path, index):
    case = Case("pipeline", index)
    model = folders("original", case.facts["kind"])
    frames = made(case.command(model, tmp_path, size=CASES["size"]), tmp_path)
    assert np.abs(frames[:, ::EVERY, ::EVERY] - case.tensors["frames"].astype(np.float32)).max() < BAR


@pytest.mark.parametrize("index", range(len(CASES["photos"])))
def test_a_photo_of_another_shape_gives_the_clip_its_shape(folders, tmp_path, index):
    case = Case("photos", index)
    model = folders("original", case.facts["kind"])
    frames = made(case.command(model, tmp_path, size=AREAS[case.facts["area"]]), tmp_path)
    assert frames.shape[2:0:-1] == tuple(case.facts["size"])
    assert np.abs(frames - case.tensors["frames"].astype(np.float32)).max() < BAR


@pytest.mark.parametrize("index", range(len(CASES["packed"])))
def test_packed_folders_of_other_programs_run_as_they_are_packed(folders, tmp_path, index):
    packed, case = Case("packed", index), Case("loops", CASES["packed"][index]["loop"])
    how = packed.facts
    model = folders(how["layout"], case.facts["kind"], bits=how["bits"], every=how["every"])
    words = case.command(model, tmp_path, size=case.facts["size"])
    if how["layout"] == "mlx-video":  # which has no tokenizer: its program fetches one
        words += ["--tokenizer", WAN / "tokenizer.json"]
    frames = made(words, tmp_path)
    assert np.abs(frames - packed.tensors["frames"].astype(np.float32)).max() < BAR


@pytest.mark.parametrize(
    ("layout", "index"), [("diffusers", 2), ("diffusers", 4), ("diffusers", 6), ("mlx-video", 3), ("mlx-video", 5)]
)
def test_dense_folders_of_other_programs_are_the_same_model(folders, tmp_path, layout, index):
    case = Case("loops", index)
    words = case.command(folders(layout, case.facts["kind"]), tmp_path, size=case.facts["size"])
    words += ["--tokenizer", WAN / "tokenizer.json"]
    assert np.abs(made(words, tmp_path) - case.tensors["frames"]).max() < EXACT


@pytest.mark.parametrize("index", [1, 3])
def test_single_files_for_comfyui_are_the_same_model(folders, tmp_path, index):
    """Their transformers are float16, which bf16 numbers of this size fit into."""
    case = Case("loops", index)
    words = case.command(folders("comfy", case.facts["kind"]), tmp_path, size=case.facts["size"])
    assert np.abs(made(words, tmp_path) - case.tensors["frames"]).max() < BAR


@pytest.mark.parametrize("index", [4, 6])
def test_streamed_blocks_give_the_same_frames(folders, tmp_path, index):
    case = Case("loops", index)
    words = case.command(folders("original", case.facts["kind"]), tmp_path, size=case.facts["size"])
    whole = made([*words, "--residency", "resident"], tmp_path)
    assert np.array_equal(made([*words, "--residency", "streamed"], tmp_path), whole)


def test_two_experts_are_never_in_memory_together_and_none_is_while_frames_are_decoded(folders, tmp_path, monkeypatch):
    """A store that nobody enters any more would keep the second expert through the decoder's largest moment."""
    case, held = Case("loops", 4), []
    stores = []

    def loads(store, *rest):
        stores.append(store)
        made = get_dit(store, *rest)
        held.append(sum("dit" in each.loaded for each in {id(store): store for store in stores}.values()))
        return made

    def decoded(*arguments):
        held.append(sum("dit" in store.loaded for store in stores))
        return decode_latents(*arguments)

    get_dit, decode_latents = ModelStore.get_dit, generate.decode_latents
    monkeypatch.setattr(ModelStore, "get_dit", loads)
    monkeypatch.setattr(generate, "decode_latents", decoded)
    words = case.command(folders("original", case.facts["kind"]), tmp_path, size=case.facts["size"])
    made([*words, "--process", "shared"], tmp_path)
    assert len({id(store) for store in stores}) == 2
    assert held == [1] * (len(held) - 1) + [0]


def test_two_experts_run_in_a_process_of_their_own_too(folders, tmp_path):
    case = Case("loops", 4)
    words = case.command(folders("original", case.facts["kind"]), tmp_path, size=case.facts["size"])
    frames = made([*words, "--process", "own"], tmp_path)
    assert np.abs(frames - case.tensors["frames"]).max() < EXACT
