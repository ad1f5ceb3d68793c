"""What a run may take where others hold the machine's memory: both numbers, the smaller one, and what to close."""

from types import SimpleNamespace

import psutil
import pytest
from support import golden_scene, golden_settings

from mlx_backend.interface.errors import RequestError
from mlx_backend.interface.machine import Allowance
from mlx_backend.members.scail2.prepared import prepare_run
from mlx_backend.pipelines import planning
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.runtime import machine

GB = 10**9


def test_the_smaller_number_counts_and_advice_comes_only_where_others_hold_memory():
    assert Allowance(10 * GB, 6 * GB).bytes == 6 * GB
    assert Allowance(10 * GB, 12 * GB).bytes == Allowance(10 * GB).bytes == 10 * GB
    assert not Allowance(10 * GB, 12 * GB).advice
    said = Allowance(10 * GB, 6 * GB).advice
    assert "10.0 GB" in said
    assert "only 6.0 GB are free now: close" in said
    assert "memory_gb" in said


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A system with 5 GB available, of which this process holds 2 GB more; return the folder of a container."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5 * GB))
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=2 * GB)))
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    return tmp_path


def test_what_the_process_holds_itself_is_its_own(system):
    assert machine.free_memory() == 7 * GB


@pytest.mark.parametrize(("limit", "expected"), [(str(4 * GB), 4 * GB), ("max", 7 * GB), (str(64 * GB), 7 * GB)])
def test_a_container_has_a_limit_of_its_own(limit, expected, system):
    (system / "memory.max").write_text(f"{limit}\n")
    (system / "memory.current").write_text(f"{3 * GB}\n")
    (system / "memory.stat").write_text(f"anon 7\ninactive_file {GB}\n")
    assert machine.free_memory() == expected


def test_it_is_read_anew_each_time(system, monkeypatch):
    first = machine.free_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=GB))
    assert machine.free_memory() == first - 4 * GB


def test_a_system_that_does_not_tell_is_planned_by_its_share(monkeypatch):
    def fail():
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "virtual_memory", fail)
    assert machine.free_memory() is None


def test_a_run_is_refused_with_both_numbers_unless_the_user_sets_one(snapshot, listener, monkeypatch):
    monkeypatch.setattr(planning, "free_memory", lambda: 100_000_000)
    monkeypatch.setattr(planning, "memory_budget", lambda *_: 8 * GB)
    scene = golden_scene(2)
    run = prepare_run(scene.references[:1], scene, golden_settings(2), listener)

    def plan(memory):
        models = Models.of(ModelStore(snapshot, "auto", memory=memory))
        return planning.plan_run(models.dit, models.vae, models.text_encoder, models.clip, run)

    with pytest.raises(RequestError, match=r"0\.1 GB may be used.*would allow 8\.0 GB, but only 0\.1 GB are free now"):
        plan(0)
    assert plan(8 * GB).needed_bytes <= 8 * GB
