"""What the pack keeps on disk: told, and removed when the user wants it."""

import pytest

from demo.pack import load_pack


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Return the module, on folders with three files of ours and one of somebody else's."""
    module = load_pack().nodes.caches
    conditioning, segments = tmp_path / "conditioning", tmp_path / "segments"
    for folder in (conditioning, segments):
        folder.mkdir()
    (conditioning / "a.npy").write_bytes(bytes(100))
    (segments / "b.safetensors").write_bytes(bytes(1000))
    (segments / ".c.safetensors.1234.part").write_bytes(bytes(10))
    (segments / "my notes.txt").write_text("not ours")
    monkeypatch.setattr(module.host, "cache_folder", lambda: conditioning)
    monkeypatch.setattr(module.host, "resume_folder", lambda: segments)
    return module


def test_what_is_kept_is_told(caches):
    assert caches.cached() == {"conditioning": {"files": 1, "bytes": 100}, "segments": {"files": 2, "bytes": 1010}}


def test_only_the_chosen_cache_is_cleared_and_only_of_our_files(caches, tmp_path):
    assert caches.clear(["segments"]) == {"segments": {"files": 2, "bytes": 1010}}
    assert sorted(path.name for path in (tmp_path / "segments").iterdir()) == ["my notes.txt"]
    assert (tmp_path / "conditioning" / "a.npy").exists()
    assert caches.cached()["segments"] == {"files": 0, "bytes": 0}


def test_an_unknown_cache_is_refused_before_anything_is_removed(caches):
    with pytest.raises(Exception, match="There is no cache 'models'"):
        caches.clear(["segments", "models"])
    assert caches.cached()["segments"]["files"] == 2


def test_folders_that_are_not_there_are_empty(caches, monkeypatch, tmp_path):
    monkeypatch.setattr(caches.host, "resume_folder", lambda: tmp_path / "none")
    monkeypatch.setattr(caches.host, "cache_folder", lambda: None)
    assert {held["files"] for held in caches.cached().values()} == {0}
    assert caches.clear(list(caches.CACHES)) == {name: {"files": 0, "bytes": 0} for name in caches.CACHES}
