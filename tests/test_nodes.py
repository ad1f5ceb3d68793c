"""The nodes, executed as ComfyUI executes them: torch tensors in, torch tensors out."""

import importlib
import logging
import re
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from support import GOLDENS, ROOT, Golden, golden_cases, golden_file

from demo.pack import load_pack

FRAMES_BAR = 6e-4
IDS = [
    "LoadScail2MLX",
    "Scail2LoraLoader",
    "Scail2T5Encode",
    "Scail2ClipEncode",
    "Scail2Sampler",
    "WanVaeTiledDecode",
    "Scail2Convert",
    "Scail2Doctor",
    "Scail2Settings",
    "Scail2ColoredMask",
    "Scail2ResampleFps",
    "Scail2FitReference",
    "Scail2InputCheck",
    "Scail2Report",
    "Scail2Animate",
    "Scail2CoreSampler",
    "Scail2LoadVideo",
    "WanMLXLoader",
    "WanMLXLora",
    "WanMLXPrompt",
    "WanMLXSampler",
]


def image(golden, name):
    return None if golden(name) is None else torch.from_numpy(golden(name).astype(np.float32) / 255)


def sampled(nodes, index, **changes):
    """Run the sampler on a golden case, and return (vae handle, LATENT)."""
    return wired(nodes, index, **changes)[:2]


def wired(nodes, index, **changes):
    """Wire the nodes as the workflows do, for a golden case, and return (vae handle, LATENT, report)."""
    case, golden = golden_cases("pipeline")[index], Golden(golden_file("pipeline"), index)
    model, text_encoder, clip_vision, vae = nodes["LoadScail2MLX"](
        {"snapshot": str(GOLDENS / "snapshot"), "precision": "auto"}
    )
    (text,) = nodes["Scail2T5Encode"](
        {"text_encoder": text_encoder, "prompt": case["prompt"], "negative_prompt": case["negative"]}
    )
    reference = image(golden, "reference")
    (clip,) = nodes["Scail2ClipEncode"]({"clip_vision": clip_vision, "reference_image": reference})
    inputs = {
        "model": model,
        "vae": vae,
        "text": text,
        "clip_features": clip,
        "reference_image": reference,
        "driving_video": image(golden, "driving"),
        "reference_mask": image(golden, "reference_mask"),
        "driving_mask": image(golden, "driving_mask"),
        "mode": "replacement" if case["replace"] else "animation",
        "width": 96,
        "height": 64,
        "steps": case["steps"],
        "cfg": case["guide"],
        "shift": case["shift"],
        "solver": case["solver"],
        "seed": case["seed"],
        "segment_length": case["length"],
        "segment_overlap": case["overlap"],
        "start_frame": 0,
        "max_frames": 0,
        "follow_orientation": True,
        "black_background": True,
    }
    return vae, *nodes["Scail2Sampler"](inputs | changes)


def decoded(nodes, vae, latent, tile_size=0):
    (images,) = nodes["WanVaeTiledDecode"]({"vae": vae, "latent": latent, "tile_size": tile_size, "tile_overlap": 64})
    return images


def test_the_ids_never_change(nodes):
    assert list(nodes) == IDS


def test_every_input_has_a_tooltip(nodes):
    for cls in load_pack().NODES:
        for item in cls.GET_SCHEMA().inputs:
            assert item.tooltip, f"{cls.__name__}.{item.id}"


@pytest.mark.parametrize("index", range(len(golden_cases("pipeline"))))
def test_frames_through_the_nodes_match_the_golden(index, nodes):
    images = decoded(nodes, *sampled(nodes, index))
    expected = golden_file("pipeline")[f"{index}.frames"].astype(np.float32)
    assert images.dtype == torch.float32
    assert tuple(images.shape) == expected.shape
    assert np.abs(images.numpy() - expected).max() < FRAMES_BAR


def test_the_latent_is_what_core_nodes_understand(nodes):
    """One segment of 4k+1 frames: `samples` are raw, so a plain decode of them gives our frames."""
    from mlx_backend.interface.latent_space import WAN21

    vae, latent = sampled(nodes, 0)
    samples = latent["samples"]
    assert tuple(samples.shape) == (1, 16, 3, 8, 12)
    mean, std = (torch.tensor(values).reshape(16, 1, 1, 1) for values in (WAN21.mean, WAN21.std))
    from mlx_backend.interface.events import LogListener
    from mlx_backend.pipelines.decode import decode_segment
    from mlx_backend.pipelines.store import Models, ModelStore, get_vae
    from mlx_backend.weights.checkpoints.snapshot import Snapshot

    store = ModelStore(Snapshot.open(GOLDENS / "snapshot"), "auto")
    network = get_vae(Models.of(store).vae, LogListener())
    plain = decode_segment(network, ((samples[0] - mean) / std).numpy(), None, lambda: None, lambda _: None)
    assert np.abs(plain - decoded(nodes, vae, latent).numpy()).max() < 1e-5


def test_equal_segments_are_stacked_and_a_shorter_one_lies_in_the_tag(nodes):
    _, equal = sampled(nodes, 4)  # 21 frames in windows of 13: two of 13
    assert tuple(equal["samples"].shape) == (2, 16, 4, 8, 12)
    assert equal["scail2_mlx"]["tail"] is None
    _, unequal = sampled(nodes, 3)  # 24 frames: 13, 13 and 9
    tag = unequal["scail2_mlx"]
    assert tuple(unequal["samples"].shape) == (2, 16, 4, 8, 12)
    assert tuple(tag["tail"].shape) == (16, 3, 8, 12)
    assert (tag["frames"], tag["overlap"], tag["model"]) == (24, 5, "scail-2-14b")
    assert tag["segments"] == [(0, 13, 0), (8, 13, 5), (16, 9, 5)]


def test_a_plain_latent_is_one_clip(nodes):
    vae, latent = sampled(nodes, 0)  # one segment of 4k+1 frames, so joining changes nothing
    assert torch.equal(decoded(nodes, vae, {"samples": latent["samples"]}), decoded(nodes, vae, latent))


def test_segments_without_our_tag_are_refused(nodes):
    vae, latent = sampled(nodes, 4)
    for samples in (latent["samples"], latent["samples"][:1, :8], latent["samples"][0]):
        with pytest.raises(Exception, match="it must be one clip"):
            decoded(nodes, vae, {"samples": samples})


def test_a_latent_that_was_changed_is_refused(nodes):
    vae, latent = sampled(nodes, 2)
    for samples in (latent["samples"][:, :4], latent["samples"].repeat(1, 1, 2, 1, 1), latent["samples"][0]):
        with pytest.raises(Exception, match="its own plan says"):
            decoded(nodes, vae, latent | {"samples": samples})


def test_a_mask_socket_means_one_person_in_blue(nodes):
    """A MASK gives what the same mask painted blue on the mode's background gives."""
    golden = Golden(golden_file("pipeline"), 0)
    masks = {name: image(golden, name)[..., 2] * (image(golden, name)[..., 0] < 0.5) for name in MASKS}
    _, from_mask = sampled(nodes, 0, **masks)
    _, from_colours = sampled(nodes, 0)
    assert torch.equal(from_mask["samples"], from_colours["samples"])


MASKS = ("reference_mask", "driving_mask")


def test_missing_masks_are_told_once_each(nodes, caplog):
    with caplog.at_level(logging.WARNING, "scail2_mlx"):
        sampled(nodes, 5)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "There is no driving mask",
        "There is no reference mask",
    ]


def test_start_and_maximum_cut_the_driving_video(nodes):
    _, latent = sampled(nodes, 0, start_frame=2, max_frames=5)
    assert latent["scail2_mlx"]["frames"] == 5
    golden = Golden(golden_file("pipeline"), 0)
    cut = {"driving_video": image(golden, "driving")[2:7], "driving_mask": image(golden, "driving_mask")[2:7]}
    _, same = sampled(nodes, 0, **cut)
    assert torch.equal(latent["samples"], same["samples"])


def test_an_upright_reference_turns_the_size(nodes):
    golden = Golden(golden_file("pipeline"), 5)
    upright = {"reference_image": image(golden, "reference").transpose(1, 2)}
    _, turned = sampled(nodes, 5, **upright)
    assert tuple(turned["samples"].shape[-2:]) == (12, 8)
    _, kept = sampled(nodes, 5, follow_orientation=False, **upright)
    assert tuple(kept["samples"].shape[-2:]) == (8, 12)


def test_tiles_give_the_same_picture_where_one_tile_covers_it(nodes):
    vae, latent = sampled(nodes, 0)
    assert torch.equal(decoded(nodes, vae, latent), decoded(nodes, vae, latent, tile_size=128))


def test_a_folder_that_is_no_snapshot_is_refused_on_loading(nodes, tmp_path):
    with pytest.raises(Exception, match="has no config.json"):
        nodes["LoadScail2MLX"]({"snapshot": str(tmp_path), "precision": "auto"})
    with pytest.raises(Exception, match="There is no snapshot 'nothing-here'"):
        nodes["LoadScail2MLX"]({"snapshot": "nothing-here", "precision": "auto"})


def test_a_published_snapshot_is_downloaded_when_it_is_used(nodes, tmp_path, monkeypatch):
    """The Hub is replaced by a folder; one file fails once, and the second try keeps what came."""
    import shutil

    asked = []

    def fetch(url, part, expected, listener):
        asked.append(url)
        name = url.rsplit("/", 1)[-1]
        if asked.count(url) == 1 and name == "vae.safetensors":
            raise OSError("connection lost")
        shutil.copy(GOLDENS / "snapshot" / name, part)

    checkpoints = load_pack().__name__ + ".mlx_backend.weights.checkpoints"
    hub, origin = (importlib.import_module(f"{checkpoints}.{name}") for name in ("hub", "origin"))
    promised = {name: origin.Expected(None, "") for name in hub.FILES}
    monkeypatch.setattr(hub, "_fetch", fetch)
    monkeypatch.setattr(
        hub, "_ask", lambda tier, _: origin.Origin(tier.repository, tier.revision, tier.folder, promised)
    )
    monkeypatch.chdir(tmp_path)
    choice = {"snapshot": "SceneWorks/scail2-mlx/q8", "precision": "auto"}
    with pytest.raises(Exception, match="connection lost"):
        nodes["LoadScail2MLX"](choice)
    nodes["LoadScail2MLX"](choice)
    assert (tmp_path / "scail2" / "scail2-mlx" / "q8" / "vae.safetensors").is_file()
    before = len(asked)
    nodes["LoadScail2MLX"](choice)
    assert len(asked) == before  # all there: nothing is asked of the Hub
    assert all("/resolve/ce88cfdb1008f395e9c820e525e6db7b6695f7b3/q8/" in url for url in asked)


def test_samples_never_replace_a_file_of_the_user(tmp_path, monkeypatch):
    host = sys.modules[load_pack().__name__ + ".nodes.host"]
    folder_paths = types.SimpleNamespace(get_input_directory=lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "folder_paths", folder_paths)
    mine = tmp_path / "scail2_reference.png"
    mine.write_bytes(b"mine")
    host.offer_samples()
    assert mine.read_bytes() == b"mine"
    samples = [path.name for path in (ROOT / "assets").iterdir() if path.suffix in (".png", ".mp4")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"scail2_{name}" for name in samples)


def test_the_loader_takes_parts_from_files(nodes):
    """A run with every part named alone gives what the whole folder gives."""
    folder = GOLDENS / "snapshot"
    files = {
        name: str(folder / f"{part}.safetensors")
        for name, part in (("dit", "dit"), ("vae", "vae"), ("text_encoder", "t5_encoder"), ("clip_vision", "clip"))
    }
    load = nodes["LoadScail2MLX"]
    handles = load({"snapshot": "only the files below", "precision": "auto", **files})
    store = handles[0].store
    assert {name: path.name for name, path in store.snapshot.files.items()} == {
        part: f"{part}.safetensors" for part in ("dit", "vae", "t5_encoder", "clip")
    }
    assert store.snapshot.tokenizer == folder / "tokenizer.json"
    with pytest.raises(Exception, match="There is no file 'gone.safetensors' in models/vae"):
        load({"snapshot": "only the files below", "precision": "auto", "vae": "gone.safetensors"})
    with pytest.raises(Exception, match="No diffusion transformer was given"):
        load({"snapshot": "only the files below", "precision": "auto"})


def test_the_loader_takes_a_tokenizer(nodes, tmp_path, monkeypatch):
    """From ComfyUI's folders, whose own lists leave tokenizers out; links in a circle end."""
    text_encoders, snapshots = tmp_path / "text_encoders", tmp_path / "scail2"
    for path in (text_encoders / "umt5/tokenizer.json", text_encoders / "spiece.model", snapshots / "a/tokenizer.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((GOLDENS / "snapshot" / "tokenizer.json").read_bytes())
    (text_encoders / "tokenizer_config.json").write_text("{}")
    (text_encoders / "umt5" / "circle").symlink_to(text_encoders)
    folder_paths = types.SimpleNamespace(
        get_user_directory=lambda: str(tmp_path / "user"),
        folder_names_and_paths={"text_encoders": None, "scail2": None},
        get_folder_paths=lambda kind: [str(tmp_path / kind)],
        get_filename_list=lambda _: [],
    )
    monkeypatch.setitem(sys.modules, "folder_paths", folder_paths)
    load = load_pack().NODES[0]
    (offered,) = (item.options for item in load.define_schema().inputs if item.id == "tokenizer")
    assert offered[0] == "from the snapshot"
    assert {"umt5/tokenizer.json", "spiece.model", "a/tokenizer.json"} <= set(offered)
    assert len(offered) <= 2 + 3 * 2  # some again by way of the circle
    choice = {"snapshot": str(GOLDENS / "snapshot"), "precision": "auto"}
    before = load.fingerprint_inputs(**choice)
    for name, path in (("umt5/tokenizer.json", text_encoders / "umt5"), ("a/tokenizer.json", snapshots / "a")):
        store = nodes["LoadScail2MLX"]({**choice, "tokenizer": name})[0].store
        assert store.snapshot.tokenizer == path / "tokenizer.json"
        assert store.snapshot.path("dit") == GOLDENS / "snapshot" / "dit.safetensors"
        assert load.fingerprint_inputs(**choice, tokenizer=name) != before
    with pytest.raises(Exception, match="There is no tokenizer 'gone.json' in models/text_encoders"):
        nodes["LoadScail2MLX"]({**choice, "tokenizer": "gone.json"})


def test_gguf_files_are_offered_though_comfyui_lists_none(nodes, tmp_path, monkeypatch):
    path = tmp_path / "diffusion_models" / "wan" / "SCAIL-2-Q4_K_M.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    folder_paths = types.SimpleNamespace(
        get_user_directory=lambda: str(tmp_path / "user"),
        folder_names_and_paths={"diffusion_models": None},
        get_folder_paths=lambda kind: [str(tmp_path / kind)],
        get_filename_list=lambda _: ["a.safetensors"],
        get_full_path=lambda kind, name: str(tmp_path / kind / name),
    )
    monkeypatch.setitem(sys.modules, "folder_paths", folder_paths)
    load = load_pack().NODES[0]
    (offered,) = (item.options for item in load.define_schema().inputs if item.id == "dit")
    assert offered == ["from the snapshot", "a.safetensors", "wan/SCAIL-2-Q4_K_M.gguf"]
    choice = {"snapshot": str(GOLDENS / "snapshot"), "precision": "auto", "dit": offered[-1]}
    with pytest.raises(Exception, match=f"{re.escape(str(path))}.*GGUF"):  # of which there are four bytes
        nodes["LoadScail2MLX"](choice)


def test_a_lora_node_adds_to_the_handle(nodes, tmp_path):
    model = nodes["LoadScail2MLX"]({"snapshot": str(GOLDENS / "snapshot"), "precision": "auto"})[0]
    path = tmp_path / "a.safetensors"
    save_file({"diffusion_model.blocks.0.norm3.diff_b": np.zeros(256, np.float32)}, path)
    inputs = {"lora": str(path), "strength": 0.8, "allow_unknown": False}
    (once,) = nodes["Scail2LoraLoader"]({"model": model, **inputs})
    (twice,) = nodes["Scail2LoraLoader"]({"model": once, **inputs, "strength": -1.0})
    assert model.loras == ()
    assert [(lora.path, lora.strength) for lora in twice.loras] == [(path, 0.8), (path, -1.0)]
    with pytest.raises(Exception, match="There is no LoRA 'gone'"):
        nodes["Scail2LoraLoader"]({"model": model, **inputs, "lora": "gone"})


# No page has been there to take its picture.
@pytest.mark.parametrize("name", IDS)
def test_the_help_page_begins_with_a_picture_of_the_node(name):
    """ComfyUI's page resolves a relative path against the folder of the help pages."""
    docs = ROOT / "web" / "docs"
    _, _, line, *_ = (docs / f"{name}.md").read_text(encoding="utf-8").splitlines()
    described = re.fullmatch(rf"!\[([^\]]+)\]\(images/{name}\.jpg\)", line)
    assert described
    assert len(described[1]) > 40, "who cannot see the picture is told what it shows"
    path = docs / "images" / f"{name}.jpg"
    assert path.stat().st_size <= 45 * 1024
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "JPEG"
        assert 300 <= picture.width <= 640


def test_every_picture_of_the_help_pages_is_shown():
    assert sorted(path.stem for path in (ROOT / "web" / "docs" / "images").iterdir()) == sorted(IDS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, True),
        ({"width": None, "segment_length": None}, True),
        ({"width": 100}, "multiple of 32: use 96 or 128"),
        ({"height": 8192}, "must be 32 to 4096"),
        ({"segment_length": 4}, "must be 5 to 1025"),
        ({"segment_length": 80}, "4k\\+1 frames: use 77 or 81"),
        ({"segment_length": 5, "segment_overlap": 5}, "must be smaller than the segment length"),
    ],
)
@pytest.mark.parametrize("node", ["Scail2Sampler", "Scail2InputCheck"])
def test_constants_that_no_run_can_have_are_refused_before_the_queue(node, changes, said):
    given = {"width": 96, "height": 64, "segment_length": 81, "segment_overlap": 5} | changes
    cls = next(cls for cls in load_pack().NODES if cls.GET_SCHEMA().node_id == node)
    found = cls.validate_inputs(**given)
    assert found is True if said is True else re.search(said, found)


def node_class(node_id):
    return next(cls for cls in load_pack().NODES if cls.GET_SCHEMA().node_id == node_id)


def test_choices_that_exclude_each_other_are_refused_before_the_queue():
    size = {"width": 96, "height": 64, "segment_length": 81, "segment_overlap": 5}
    check = node_class("Scail2Sampler").validate_inputs
    assert check(**size, history="latents", colour_anchor="latent") is True
    assert check(**size, history="latents", colour_anchor=None) is True
    assert "cannot go with the history 'latents'" in check(**size, history="latents", colour_anchor="lab")
    assert "history 'films' is unknown" in check(**size, history="films")


def test_tiles_and_files_that_cannot_be_are_refused_before_the_queue():
    decode = node_class("WanVaeTiledDecode").validate_inputs
    assert decode(0, 64) is True
    assert decode(None, 64) is True
    assert "does not fit tiles of 128" in decode(128, 96)
    load = node_class("LoadScail2MLX").validate_inputs
    assert "choose it at dit" in load("only the files below")
    assert load("only the files below", None) is True
    assert "There is no file 'gone.safetensors'" in load("auto", "gone.safetensors")
