"""What the nodes tell ComfyUI while they work."""

import sys
import types

import pytest

from demo.pack import load_pack


@pytest.fixture
def host():
    load_pack()
    return sys.modules["scail2_mlx_pack.nodes.host"]


def test_warnings_and_notes_are_shown_under_the_node(host, monkeypatch):
    shown = []
    instance = types.SimpleNamespace(send_progress_text=lambda text, node: shown.append((node, text)))
    server = types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=instance))
    context = types.SimpleNamespace(node_id="7")
    monkeypatch.setitem(sys.modules, "server", server)
    utils = types.SimpleNamespace(get_executing_context=lambda: context)
    monkeypatch.setitem(sys.modules, "comfy_execution.utils", utils)
    listener = host.HostListener()
    listener.note("About 3 minutes.")
    listener.warn("There is no mask.")
    assert shown == [("7", "About 3 minutes."), ("7", "Warning: There is no mask.\nAbout 3 minutes.")]


@pytest.mark.parametrize("server", [None, types.SimpleNamespace(), types.SimpleNamespace(PromptServer=object)])
def test_without_a_page_they_go_to_the_log(host, server, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "server", server)
    host.HostListener().warn("There is no mask.")
    assert "There is no mask." in caplog.text
