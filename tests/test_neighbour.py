"""What the pack owes the machine and the others on it: memory given back, a Mac awake, disks that do not fill up."""

import gc
import hashlib
import json
import subprocess
import sys
import threading
import time
import types

import pytest
from support import GOLDENS, Recorder

from benchmarks.attacks.local_hub import served
from demo.pack import load_pack
from mlx_backend.cli.main import main
from mlx_backend.interface.errors import Cancelled, DependencyError, WeightsError
from mlx_backend.interface.published import PUBLISHED, SCAIL2_MLX, SCAIL2_MLX_COMMIT, published
from mlx_backend.pipelines.store import ModelStore
from mlx_backend.runtime import awake, device
from mlx_backend.weights.checkpoints import hub, origin

GB = 10**9


@pytest.fixture
def pack():
    load_pack()
    return {name: sys.modules[f"scail2_mlx_pack.nodes.{name}"] for name in ("host", "neighbour", "loaders")}


@pytest.fixture
def management(monkeypatch):
    """ComfyUI's memory, as far as it is used: 10 GB are free."""

    def free_memory(memory_required, device, keep_loaded=(), **others):
        module.asked.append((memory_required, device, keep_loaded, others))
        return ["unloaded"]

    module = types.SimpleNamespace(
        asked=[],
        free_memory=free_memory,
        get_free_memory=lambda device: 10 * GB,
        unload_all_models=lambda: module.free_memory(1e30, "mps"),
        soft_empty_cache=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "comfy.model_management", module)
    return module


class Store:
    def __init__(self):
        self.loaded = ("dit",)

    def release(self):
        self.loaded = ()


@pytest.fixture
def neighbour(pack, management):
    made = pack["neighbour"].Neighbour()
    made.move_in()
    return made


def test_free_memory_releases_our_networks_and_handles_load_them_again(pack, management, neighbour, snapshot, listener):
    store = ModelStore(snapshot, "auto")
    neighbour.add(store)
    store.get("vae", listener)
    management.unload_all_models()  # what /free and the Manager's button end in
    assert store.loaded == ()
    assert management.asked == [(1e30, "mps", (), {})]
    store.get("vae", listener)
    assert store.loaded == ("vae",)


@pytest.mark.parametrize(("wanted", "released"), [(9 * GB, False), (11 * GB, True)])
def test_another_model_gets_the_memory_when_there_is_too_little(wanted, released, management, neighbour):
    store = Store()
    neighbour.add(store)
    assert management.free_memory(wanted, "mps", ["kept"], for_dynamic=True) == ["unloaded"]
    assert (store.loaded == ()) == released
    assert management.asked == [(wanted, "mps", ["kept"], {"for_dynamic": True})]  # asked as it was, in any case


def test_every_device_is_meant_where_none_is_named(management, neighbour):
    store = Store()
    neighbour.add(store)
    management.free_memory(1, None)
    assert store.loaded == ()


def test_a_run_keeps_what_it_works_with(pack, management, neighbour):
    store = Store()
    neighbour.add(store)
    with neighbour.undisturbed():
        with pytest.raises(Cancelled), neighbour.at_work():
            raise Cancelled
        management.unload_all_models()
        assert store.loaded == ("dit",)
    management.unload_all_models()
    assert store.loaded == ()


def test_freeing_torchs_memory_before_a_run_frees_torchs_alone(pack, management, monkeypatch):
    ours = pack["neighbour"].neighbour()
    ours.move_in()
    store = Store()
    ours.add(store)
    pack["host"].free_torch_memory()
    assert management.asked
    assert store.loaded == ("dit",)
    management.unload_all_models()
    assert store.loaded == ()


def test_a_store_that_nobody_uses_is_forgotten(management, neighbour):
    kept, gone = Store(), Store()
    neighbour.add(kept)
    neighbour.add(gone)
    del gone
    gc.collect()
    assert list(neighbour._stores) == [kept]


def test_moving_in_twice_asks_once(pack, management, neighbour):
    first = management.free_memory
    neighbour.move_in()
    pack["neighbour"].Neighbour().move_in()
    assert management.free_memory is first


def test_outside_comfyui_nobody_is_asked(pack, monkeypatch):
    monkeypatch.delitem(sys.modules, "comfy.model_management", raising=False)
    pack["neighbour"].Neighbour().move_in()


def test_the_loaders_stores_are_known(pack, management, snapshot):
    folder = GOLDENS / "snapshot"
    model = pack["loaders"].LoadScail2MLX.execute(snapshot=str(folder), precision="auto").args[0]
    assert model.store in pack["neighbour"].neighbour()._stores


# A Mac stays awake


@pytest.fixture
def children(monkeypatch):
    """`caffeinate` as a list of what happens to it."""

    class Child:
        stubborn = False

        def __init__(self, command, **streams):
            happened.append(command)

        def terminate(self):
            happened.append("terminated")

        def kill(self):
            happened.append("killed")

        def wait(self, timeout=None):
            if timeout is not None and Child.stubborn:
                raise subprocess.TimeoutExpired("caffeinate", timeout)
            happened.append("waited for")

    happened = []
    monkeypatch.setattr(awake.subprocess, "Popen", Child)
    monkeypatch.setattr(awake.platform, "system", lambda: "Darwin")
    return types.SimpleNamespace(happened=happened, kind=Child)


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_mac_is_kept_awake_as_long_as_a_run_lasts(stubborn, children, monkeypatch):
    monkeypatch.setattr(awake.os, "getpid", lambda: 4711)
    children.kind.stubborn = stubborn
    with pytest.raises(Cancelled), awake.kept_awake():
        assert children.happened == [["/usr/bin/caffeinate", "-i", "-w", "4711"]]
        raise Cancelled
    assert children.happened[1:] == ["terminated", *(["killed"] if stubborn else []), "waited for"]


def test_a_run_goes_on_where_caffeinate_does_not_start(children, monkeypatch, caplog):
    def missing(*_, **__):
        raise FileNotFoundError("no such file")

    monkeypatch.setattr(awake.subprocess, "Popen", missing)
    ran = []
    with awake.kept_awake():
        ran.append(True)
    assert ran
    assert "cannot be kept awake" in caplog.text


def test_other_systems_start_nothing(children, monkeypatch):
    monkeypatch.setattr(awake.platform, "system", lambda: "Linux")
    with awake.kept_awake():
        pass
    assert children.happened == []


def test_nodes_and_commands_keep_it_awake(children, pack, nodes, snapshot, capsys, monkeypatch):
    monkeypatch.setattr(device.platform, "machine", lambda: "arm64")
    model = nodes["LoadScail2MLX"]({"snapshot": str(GOLDENS / "snapshot"), "precision": "auto"})
    assert children.happened == []
    nodes["Scail2T5Encode"]({"text_encoder": model[1], "prompt": "a dancer", "negative_prompt": ""})
    commands = [command for command in children.happened if isinstance(command, list)]
    assert [command[1:3] for command in commands] == [["-i", "-w"]]
    assert children.happened[1:] == ["terminated", "waited for"]
    children.happened.clear()
    assert main(["inspect", "no such file"]) != 0
    assert children.happened[0][0] == "/usr/bin/caffeinate"
    assert children.happened[1:] == ["terminated", "waited for"]


# The Python it runs in


@pytest.mark.parametrize(
    ("system", "machine", "refused"),
    [("Darwin", "x86_64", True), ("Darwin", "arm64", False), ("Linux", "x86_64", False)],
)
def test_a_macs_python_for_intel_is_told_so(system, machine, refused, monkeypatch):
    monkeypatch.setattr(device.platform, "system", lambda: system)
    monkeypatch.setattr(device.platform, "machine", lambda: machine)
    if not refused:
        device.require_mlx()
        return
    with pytest.raises(DependencyError) as error:
        device.require_mlx()
    for part in (sys.executable, "x86_64", "Rosetta", "arm64"):
        assert part in str(error.value)


# Downloads


def content(name):
    return (GOLDENS / "snapshot" / name).read_bytes()


@pytest.fixture
def remote(monkeypatch):
    pytest.importorskip("huggingface_hub")
    with served(GOLDENS / "snapshot") as server:
        monkeypatch.setattr("huggingface_hub.hf_hub_url", server.url)
        monkeypatch.setattr(hub, "CHUNK", 4096)
        monkeypatch.setattr(hub, "PAUSE", 0.0)
        monkeypatch.setattr(origin, "PAUSE", 0.01)
        yield server


def fetched(server, name="dit.safetensors"):
    return [start for asked, start in server.asked if asked == name]


class Stopper(Recorder):
    """Cancels once a part of the DiT has arrived."""

    def check_cancelled(self):
        last = self.events[-1] if self.events else None
        if last is not None and last.phase == "downloading dit.safetensors" and last.total > 1:
            raise Cancelled


def test_a_download_stops_within_a_file_and_goes_on_where_it_stopped(remote, tmp_path, listener):
    stopper = Stopper()
    with pytest.raises(Cancelled):
        hub.download_snapshot("someone/tiny", tmp_path, stopper)
    assert stopper.events[-1].total == len(content("dit.safetensors"))
    begun = stopper.events[-1].done
    assert 0 < begun < stopper.events[-1].total
    assert not (tmp_path / "tiny" / "dit.safetensors").exists()
    folder = hub.download_snapshot("someone/tiny", tmp_path, listener)
    assert fetched(remote) == [0, begun]
    assert fetched(remote, "tokenizer.json") == [0]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*hub.FILES, origin.NAME, origin.LOCK])
    assert all((folder / name).read_bytes() == content(name) for name in hub.FILES)


def test_a_connection_that_breaks_is_made_again(remote, tmp_path, listener):
    remote.cuts = [10_000, 0, 0, 5000]
    folder = hub.download_snapshot("someone/tiny", tmp_path, listener)
    starts = fetched(remote)
    assert len(starts) == 5
    assert starts == sorted(starts)
    assert starts[1] == starts[2] == starts[3] > 0  # two tries without a byte
    assert (folder / "dit.safetensors").read_bytes() == content("dit.safetensors")


def test_a_connection_that_stays_broken_is_told(remote, tmp_path, listener):
    remote.cuts = [10_000] + [0] * 10
    with pytest.raises(WeightsError, match=r"dit\.safetensors of someone/tiny .* what has arrived is kept"):
        hub.download_snapshot("someone/tiny", tmp_path, listener)
    assert len(fetched(remote)) == 1 + hub.RETRIES


def test_a_file_that_is_not_the_hubs_is_thrown_away(remote, tmp_path, listener):
    remote.spoilt = {"vae.safetensors"}
    with pytest.raises(WeightsError, match="SHA-256"):
        hub.download_snapshot("someone/tiny", tmp_path, listener)
    remote.spoilt = set()
    folder = hub.download_snapshot("someone/tiny", tmp_path, listener)
    assert fetched(remote, "vae.safetensors") == [0, 0]
    assert (folder / "vae.safetensors").read_bytes() == content("vae.safetensors")


def test_a_download_that_does_not_fit_is_not_begun(remote, tmp_path, listener, monkeypatch):
    total = sum(len(content(name)) for name in hub.FILES)
    free = total + hub.SPARE_BYTES - 1
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free))
    with pytest.raises(WeightsError) as error:
        hub.download_snapshot("someone/tiny", tmp_path, listener)
    for part in ("someone/tiny", f"{total / GB:.1f} GB", f"{free / GB:.1f} GB free", str(tmp_path)):
        assert part in str(error.value)
    assert remote.asked == []
    (tmp_path / "tiny" / "config.json").write_bytes(content("config.json"))
    hub.download_snapshot("someone/tiny", tmp_path, listener)  # with one file there, the rest fits


def test_a_hub_that_tells_no_sizes_stops_no_download(remote, tmp_path, listener, monkeypatch):
    remote.unsized = True
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=0))
    folder = hub.download_snapshot("someone/tiny", tmp_path, listener)
    assert (folder / "dit.safetensors").is_file()


def test_what_has_begun_to_arrive_is_not_counted_again(tmp_path):
    sizes = {"config.json": 10, "dit.safetensors": 1000, "vae.safetensors": 200}
    (tmp_path / "config.json").write_bytes(b"x" * 10)
    (tmp_path / "vae.safetensors").write_bytes(b"x" * 199)  # of another length: fetched again
    (tmp_path / f".dit.safetensors.0123{hub.PART}").write_bytes(b"x" * 300)
    assert hub.missing_bytes(sizes, tmp_path) == 1000 + 200 - 300
    assert hub.missing_bytes({"config.json": 10}, tmp_path) == 0


NEWER = "1" * 40


def test_a_download_keeps_to_the_commit_that_it_began_with(remote, tmp_path, listener):
    """The branch moves between two tries: what is fetched then is still of the first commit."""
    with pytest.raises(Cancelled):
        hub.download_snapshot("someone/tiny", tmp_path, Stopper())
    remote.commit = NEWER
    remote.others = {(NEWER, name): content(name) + b" " for name in hub.FILES}
    folder = hub.download_snapshot("someone/tiny", tmp_path, listener)
    told = json.loads((folder / origin.NAME).read_text())
    assert told["revision"] == "0" * 40
    assert told["files"]["vae.safetensors"] == {
        "size": len(content("vae.safetensors")),
        "digest": hashlib.sha256(content("vae.safetensors")).hexdigest(),
    }
    assert sorted(told["whole"]) == sorted(hub.FILES)
    assert all((folder / name).read_bytes() == content(name) for name in hub.FILES)


@pytest.mark.parametrize("change", [b"", b" "])
def test_a_file_of_another_commit_is_not_mixed_in(change, remote, tmp_path, listener):
    """It may have the same size; it stays as it is."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    theirs = content("vae.safetensors")[:-1] + b"\1" + change
    (folder / "vae.safetensors").write_bytes(theirs)
    with pytest.raises(WeightsError, match=r"vae\.safetensors is there, but it is not the file of someone/tiny at"):
        hub.download_snapshot("someone/tiny", tmp_path, listener)
    assert (folder / "vae.safetensors").read_bytes() == theirs
    (folder / "vae.safetensors").write_bytes(content("vae.safetensors"))
    hub.download_snapshot("someone/tiny", tmp_path, listener)
    assert fetched(remote, "vae.safetensors") == []  # the right one is taken
    assert fetched(remote) == [0]


def test_a_small_file_is_compared_with_gits_name_of_it(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"hello\n")
    expected = origin.Expected(6, "ce013625030ba8dba906f756967f9e9ca394464a")  # git hash-object
    assert expected.is_met(path)
    path.write_bytes(b"hallo\n")
    assert not expected.is_met(path)
    assert not origin.Expected(5, "").is_met(path)


def test_another_commit_than_the_pinned_one_is_refused(remote, tmp_path, listener, monkeypatch):
    asked = []

    def moved(repository, name, revision):
        asked.append((repository, name, revision))
        return remote.url(repository, name, "main")

    monkeypatch.setattr("huggingface_hub.hf_hub_url", moved)
    with pytest.raises(WeightsError, match=f"commit {'0' * 40}, but {SCAIL2_MLX_COMMIT} was asked for"):
        hub.download_snapshot(f"{SCAIL2_MLX}/q8", tmp_path, listener)
    assert asked == [(SCAIL2_MLX, "q8/config.json", SCAIL2_MLX_COMMIT)]
    assert remote.asked == []


@pytest.mark.parametrize("name", [*PUBLISHED, SCAIL2_MLX])
def test_a_tier_is_fetched_from_its_folder_at_the_pinned_commit(name, remote, tmp_path, listener):
    """A repository's own name, as older workflows have it, means its first tier."""
    folder = hub.download_snapshot(name, tmp_path, listener)
    tier = name.removeprefix(SCAIL2_MLX).strip("/") or "q4"
    assert folder == tmp_path / "scail2-mlx" / tier
    told = json.loads((folder / origin.NAME).read_text())
    assert (told["repository"], told["revision"], told["folder"]) == (SCAIL2_MLX, SCAIL2_MLX_COMMIT, tier)
    before = len(remote.asked)
    assert hub.download_snapshot(name, tmp_path, listener) == folder
    assert len(remote.asked) == before == len(hub.FILES)


def test_what_lies_in_the_root_from_before_the_tiers_is_taken(remote, tmp_path, listener):
    folder = tmp_path / "scail2-mlx"
    folder.mkdir()
    for name in hub.FILES:
        (folder / name).write_bytes(content(name))
    assert hub.download_snapshot(SCAIL2_MLX, tmp_path, listener) == folder
    assert remote.asked == []


def test_what_a_tier_needs_is_told():
    assert published(f"{SCAIL2_MLX}/bf16").needs == "not packed: 47 GB of disk, 38 GB of memory or 9 GB streamed"
    sizes = [tier.size for tier in PUBLISHED.values()]
    assert sizes == sorted(sizes)
    # From q4 to q8 every weight of the 480 packed linears takes half a byte more; headers differ by a few kilobytes.
    packed = 40 * (10 * 5120**2 + 2 * 5120 * 13824)
    assert abs(sizes[1] - sizes[0] - packed // 2) < 10_000


def test_two_programs_download_one_after_the_other(remote, tmp_path, listener):
    """The second waits for the first, and then needs nothing."""
    folder = tmp_path / "tiny"
    notes = []
    listener.note = notes.append
    with origin.alone(folder, listener):
        other = threading.Thread(target=hub.download_snapshot, args=("someone/tiny", tmp_path, listener))
        other.start()
        until = time.monotonic() + 10
        while not notes and time.monotonic() < until:
            time.sleep(0.01)
        assert "Another program is downloading" in notes[0]
        assert remote.asked == []
        for name in hub.FILES:
            (folder / name).write_bytes(content(name))
    other.join(10)
    assert not other.is_alive()
    assert remote.asked == []


def test_a_record_that_says_nothing_is_told(remote, tmp_path, listener):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for damaged in ("", "[]", '{"files": {}}', '{"files": 3}', "[" * 100_000):
        (folder / origin.NAME).write_text(damaged)
        with pytest.raises(WeightsError, match="does not say where its folder is from"):
            hub.download_snapshot("someone/tiny", tmp_path, listener)
