"""The node Scail2Convert, executed as ComfyUI executes it: what it makes and where, and what it refuses."""

import json
import math
import sys
import types

import mlx.core as mx
import pytest
from support import GOLDENS

from demo.pack import load_pack
from mlx_backend.interface.conversion import ConvertOptions
from mlx_backend.interface.events import LogListener
from mlx_backend.weights.checkpoints.convert import convert
from mlx_backend.weights.checkpoints.snapshot import COMPONENTS, Snapshot

SOURCE = GOLDENS / "snapshot"
FILES = {"config.json", "tokenizer.json", *(f"{component}.safetensors" for component in COMPONENTS)}
CHOICES = {"dtype": "bfloat16", "bits": "none", "group_size": "64", "text_encoder_bits": "none"}


class Stopped(Exception):
    """What ComfyUI raises when Cancel was pressed."""


@pytest.fixture
def comfy(tmp_path, monkeypatch):
    """ComfyUI's folders in small: a snapshot under models/scail2, and a DiT and a VAE in its own folders."""
    models = tmp_path / "models"
    for kind, name, part in (("diffusion_models", "sub/x.safetensors", "dit"), ("vae", "x.safetensors", "vae")):
        path = models / kind / name
        path.parent.mkdir(parents=True)
        path.symlink_to(SOURCE / f"{part}.safetensors")
    (models / "scail2").mkdir()
    (models / "scail2" / "tiny").symlink_to(SOURCE)
    kinds = ("scail2", "diffusion_models", "vae")

    def full_path(kind, name):
        path = models / kind / name
        return str(path) if path.is_file() else None

    folder_paths = types.SimpleNamespace(
        models_dir=str(models),
        folder_names_and_paths=dict.fromkeys(kinds),
        get_folder_paths=lambda kind: [str(models / kind)],
        get_filename_list=lambda kind: [str(path.relative_to(models / kind)) for path in (models / kind).rglob("*.*")],
        get_full_path=full_path,
    )
    monkeypatch.setitem(sys.modules, "folder_paths", folder_paths)
    return models


@pytest.fixture
def node():
    return next(cls for cls in load_pack().NODES if cls.__name__ == "Scail2Convert")


def test_the_list_holds_snapshots_files_and_what_can_be_downloaded(comfy, node):
    schema = node.GET_SCHEMA()
    node.SCHEMA = None
    (source,) = (item for item in schema.inputs if item.id == "source")
    assert source.options == [
        "tiny",
        "diffusion_models/sub/x.safetensors",
        "vae/x.safetensors",
        *(f"SceneWorks/scail2-mlx/{tier}" for tier in ("q4", "q8", "bf16")),
    ]
    assert schema.is_output_node


def test_a_snapshot_becomes_a_folder_under_models(comfy, nodes, caplog):
    caplog.set_level("INFO", "scail2_mlx")  # what is shown under a node is logged too
    chosen = CHOICES | {"bits": "6", "text_encoder_bits": "8", "group_size": "32"}
    assert nodes["Scail2Convert"]({"source": "tiny", "name": "made", **chosen}) == ("made",)
    assert {path.name for path in (comfy / "scail2" / "made").iterdir()} == FILES
    assert f"{comfy / 'scail2' / 'made'}: 0.01 GB" in caplog.messages
    wanted = ConvertOptions(bits=6, group_size=32, text_encoder_bits=8)
    convert(Snapshot.open(SOURCE), comfy / "scail2" / "wanted", wanted, LogListener())
    for name in FILES:
        made, expected = (comfy / "scail2" / folder / name for folder in ("made", "wanted"))
        assert made.read_bytes() == expected.read_bytes()


def test_mixed_bits_and_dense_dtypes_can_be_chosen(comfy, nodes):
    nodes["Scail2Convert"](CHOICES | {"source": "tiny", "name": "mixed", "bits": "mixed", "dtype": "float16"})
    made = mx.load(str(comfy / "scail2" / "mixed" / "dit.safetensors"))
    assert made["head.head.weight"].dtype == mx.float16
    settings = json.loads((comfy / "scail2" / "mixed" / "config.json").read_text())["quantization"]
    assert {how["bits"] for how in settings.values() if isinstance(how, dict)} | {settings["bits"]} == {4, 8}


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("diffusion_models/sub/x.safetensors", {"dit.safetensors", "config.json"}),
        ("vae/x.safetensors", {"vae.safetensors"}),
    ],
)
def test_a_single_file_becomes_a_folder_of_that_part(source, made, comfy, nodes, node):
    assert node.validate_inputs(source, "part") is True
    nodes["Scail2Convert"](CHOICES | {"source": source, "name": "part"})
    assert {path.name for path in (comfy / "scail2" / "part").iterdir()} == made


@pytest.mark.parametrize(
    "name",
    ["", " ", "..", ".", ".hidden", "a/b", "../out", "a\\b", "/tmp/x", "C:x", "a\nb", "a\0b", " a", "a ", "x" * 101],
)
def test_names_that_lead_elsewhere_are_refused_in_words(name, comfy, nodes, node):
    before = sorted(comfy.rglob("*"))
    assert "cannot be the name of the new folder" in node.validate_inputs("tiny", name)
    with pytest.raises(Exception, match="cannot be the name of the new folder"):
        nodes["Scail2Convert"](CHOICES | {"source": "tiny", "name": name})
    assert sorted(comfy.rglob("*")) == before


def test_what_exists_is_never_overwritten(comfy, nodes, node):
    (comfy / "scail2" / "dangling").symlink_to(comfy / "gone")
    (comfy / "scail2" / "empty").mkdir()
    for name in ("tiny", "dangling", "empty"):
        assert "exists already, and nothing is overwritten" in node.validate_inputs("tiny", name)
        with pytest.raises(Exception, match="exists already, and nothing is overwritten"):
            nodes["Scail2Convert"](CHOICES | {"source": "tiny", "name": name})
    assert not (comfy / "gone").exists()
    assert not any((comfy / "scail2" / "empty").iterdir())


def test_a_source_that_is_gone_is_told(comfy, nodes, node):
    for source in ("gone", "vae/gone.safetensors", "diffusion_models/x.safetensors"):
        assert f"no model '{source}'" in node.validate_inputs(source, "new")
        with pytest.raises(Exception, match=f"There is no snapshot '{source}'"):
            nodes["Scail2Convert"](CHOICES | {"source": source, "name": "new"})
    assert node.validate_inputs("SceneWorks/scail2-mlx", "new") is True
    assert node.validate_inputs(None, None) is True  # both come from other nodes


def test_a_deleted_folder_is_made_again(node):
    assert math.isnan(node.fingerprint_inputs(**CHOICES, source="tiny", name="made"))


def test_cancel_leaves_nothing(comfy, nodes, monkeypatch):
    asked = []

    def throw():
        asked.append(sorted(path.name for path in (comfy / "scail2").iterdir()))
        if len(asked) == 50:
            raise Stopped

    management = types.SimpleNamespace(throw_exception_if_processing_interrupted=throw)
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    with pytest.raises(Stopped):
        nodes["Scail2Convert"](CHOICES | {"source": "tiny", "name": "made"})
    assert any(name.startswith(".made.part-") for name in asked[-1])
    assert [path.name for path in (comfy / "scail2").iterdir()] == ["tiny"]


def test_the_bar_moves(comfy, nodes, monkeypatch):
    moved = []

    class ProgressBar:
        def __init__(self, total):
            moved.append((0, total))

        def update_absolute(self, done, total):
            moved.append((done, total))

    monkeypatch.setitem(sys.modules, "comfy.utils", types.SimpleNamespace(ProgressBar=ProgressBar))
    nodes["Scail2Convert"](CHOICES | {"source": "tiny", "name": "made"})
    ended = [total for done, total in moved if done == total]
    assert len(ended) == len(COMPONENTS)
