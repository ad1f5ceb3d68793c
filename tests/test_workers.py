"""The networks in a process of their own: the same numbers, and what ends that process does not end this one."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from support import GOLDENS, ROOT, Recorder, generate, golden_prompts, golden_scene, golden_settings

from mlx_backend.cli.main import main
from mlx_backend.interface.errors import Cancelled, ProcessError, RequestError
from mlx_backend.interface.variants import PROCESSES
from mlx_backend.pipelines import planning
from mlx_backend.pipelines.pictures import prepare, sample_pictures
from mlx_backend.pipelines.recording import Recording
from mlx_backend.pipelines.run import Session
from mlx_backend.pipelines.sample import sample
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.runtime.machine import this_machine
from mlx_backend.workers.pool import RESTARTS, SMALLER, Pool, wants_own_process
from mlx_backend.workers.protocol import Ended

CASE = 3  # 24 frames in three segments
KILLS = 20  # of the marked test


@pytest.fixture(scope="module")
def pool():
    made = Pool()
    yield made
    made.release()


@pytest.fixture
def away(pool, snapshot):
    return Models.of(ModelStore(snapshot, "auto", elsewhere=pool))


@pytest.fixture(scope="module")
def here(models):
    """The frames that this process makes, and what it tells meanwhile."""
    listener = Told()
    return generate(models, golden_prompts(CASE), golden_scene(CASE), golden_settings(CASE), None, listener), listener


class Told(Recorder):
    """Keeps all that a run tells."""

    wants_preview = True

    def __init__(self):
        super().__init__()
        self.notes, self.previews = [], []

    def note(self, message):
        self.notes.append(message)

    def preview(self, latent):
        self.previews.append(latent)


class Killer(Recorder):
    """Kills the pool's child the first time that a run is at one of these: (phase, segment, step)."""

    def __init__(self, pool, moments):
        super().__init__()
        self._pool, self.moments = pool, moments

    def progress(self, event):
        super().progress(event)
        moment = (event.phase, event.segment, event.step)
        if moment in self.moments:
            self.moments.remove(moment)
            os.kill(self._pool.workers[0].pid, signal.SIGKILL)


def made(models, listener, kept=None):
    return generate(models, golden_prompts(CASE), golden_scene(CASE), golden_settings(CASE), None, listener, kept)


def finished(events, segment):
    """Return how often the last pass of a segment was run."""
    passes = segment * golden_settings(CASE).passes
    return sum(event.phase == "sampling" and (event.segment, event.done) == (segment, passes) for event in events)


def test_another_process_makes_the_same_and_tells_the_same(here, away, pool):
    frames, told = here
    listener = Told()
    assert np.array_equal(made(away, listener), frames)
    assert [event for event in listener.events if "loading" not in event.phase] == [
        event for event in told.events if "loading" not in event.phase
    ]
    assert listener.warnings == told.warnings
    assert len(listener.notes) == len(told.notes)
    assert len(listener.previews) == len(told.previews) > 0
    assert all(np.array_equal(a, b) for a, b in zip(listener.previews, told.previews, strict=True))
    assert away.dit.store._loaded == {}  # nothing was loaded here
    assert away.vae.store.loaded == ("vae",)


def test_torch_stays_out(pool, listener):
    modules = pool.call(eval, "sorted(__import__('sys').modules)", listener=listener)
    assert not {"torch", "comfy", "comfy_api", "pytest"}.intersection(modules)
    assert "mlx.core" in modules


def test_networks_stay_between_runs_and_go_with_the_process(pool, snapshot, listener, tmp_path, monkeypatch):
    away = Models.of(ModelStore(snapshot, "auto", cache=tmp_path, elsewhere=pool))  # text and CLIP come from the cache
    scene, settings = replace(golden_scene(CASE), max_frames=5), golden_settings(CASE)
    for loads in (1, 0):
        listener.events.clear()
        run = prepare(away, golden_prompts(CASE), scene, settings, Session(listener=listener))
        sample(run, Session(listener=listener))
        assert sum(event.phase == "loading dit" and event.done == 0 for event in listener.events) == loads
    held, pid = pool.held_bytes, pool.workers[0].pid
    monkeypatch.setattr(planning, "free_memory", lambda: 5)
    assert planning.allowance_of(away.dit).free == 5 + held  # a further run may take what the networks hold there
    assert held > 10_000_000
    assert set(away.dit.store.loaded) == {"dit", "vae"}
    away.dit.store.release()
    assert away.dit.store.loaded == ()
    assert (pool.workers[0].pid, pool.held_bytes) == (None, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_store_that_nobody_has_is_forgotten_there(pool, snapshot, listener):
    for _ in range(2):
        handle = Models.of(ModelStore(snapshot, "auto", elsewhere=pool)).text_encoder
        handle.store.elsewhere.call(type, handle, listener=listener)  # sent there, with nothing done
        number = pool.stores.number(handle.store)
    del handle
    assert number in pool.stores.gone
    pool.call(eval, "0", listener=listener)
    assert pool.workers[0].loaded == {}


@pytest.mark.parametrize("after", [0, 2, 30])
def test_cancel_stops_there_and_the_process_stays(after, here, away, pool):
    class Stopper(Recorder):
        def check_cancelled(self):
            if len(self.events) > after:
                raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled, match="by the test"):
        made(away, Stopper())
    pid = pool.workers[0].pid
    settings = replace(golden_settings(CASE), steps=1)
    run = prepare(away, golden_prompts(CASE), golden_scene(CASE), settings, Session(listener=Recorder()))
    sample_pictures(run, Session(listener=Recorder()))
    assert pool.workers[0].pid == pid


def test_an_error_there_is_the_same_error_here(pool, listener):
    with pytest.raises(RequestError, match="The process 'x' is unknown"):
        pool.call(wants_own_process, "x", listener=listener)
    with pytest.raises(ZeroDivisionError) as error:
        pool.call(eval, "1 / 0", listener=listener)
    assert "In the process of the networks" in error.value.__notes__[0]
    with pytest.raises(Exception, match="pickle"):
        pool.call(eval, "lambda: 0", listener=listener)
    assert pool.call(eval, "1 + 1", listener=listener) == 2


def test_three_deaths_cost_the_running_segments_alone(here, away, pool, tmp_path):
    """Two in the segments, one in the decoding, which counts for itself: a piece of work is begun again twice."""
    listener = Killer(pool, {("sampling", 1, 1), ("sampling", 2, 1), ("decoding", 2, 0)})
    assert np.array_equal(made(away, listener, tmp_path), here[0])
    assert listener.moments == set()
    assert sum("has ended (signal SIGKILL" in warning for warning in listener.warnings) == 3
    assert [finished(listener.events, segment) for segment in (1, 2, 3)] == [1, 1, 1]


def test_a_run_that_ends_every_process_is_given_up_and_said(away, pool):
    class Always(Recorder):
        def progress(self, event):
            os.kill(pool.workers[0].pid, signal.SIGKILL)

    listener = Always()
    with pytest.raises(ProcessError, match=f"ended {RESTARTS + 1} times .signal SIGKILL"):
        made(away, listener)
    assert sum("It is begun again" in warning for warning in listener.warnings) == RESTARTS


def test_dispatches_become_smaller_with_each_death(away, pool, listener, monkeypatch):
    found = []

    def dying(job, listener):
        found.append(job.arguments[0].how.backend.dispatch_flops)
        raise Ended("tested")

    session = Session(listener=listener)
    run = prepare(away, golden_prompts(CASE), golden_scene(CASE), golden_settings(CASE), session)
    monkeypatch.setattr(pool.workers[0], "run", dying)
    with pytest.raises(ProcessError):
        sample(run, session)
    flops = run.how.backend.dispatch_flops
    assert found == [flops, flops / SMALLER, flops / SMALLER**2]


def test_last_words_are_told(pool):
    listener = Recorder()
    command = "__import__('os').write(2, b'[METAL] out of memory\\n') and __import__('os').abort()"
    with pytest.raises(ProcessError, match=r"SIGABRT; its last words: \[METAL\] out of memory"):
        pool.call(eval, command, listener=listener)


def test_the_report_counts_the_memory_of_the_other_process(away):
    recording = Recording(Recorder())
    scene = replace(golden_scene(CASE), max_frames=5)
    run = prepare(away, golden_prompts(CASE), scene, golden_settings(CASE), Session(listener=recording))
    away.dit.store.release()
    sample(run, Session(listener=recording))
    taken = {record.phase: record.peak_bytes for record in recording.phases()}
    dit = sum(info.nbytes for info in away.dit.store.fitted("dit").source.file.tensors.values())
    assert taken["sampling"] > dit


def test_several_children_take_jobs_side_by_side(listener):
    pool, met = Pool(2), []

    def work():
        met.append(pool.call(eval, "(__import__('time').sleep(1), __import__('os').getpid())[1]", listener=listener))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.release()
    assert len(set(met)) == 2


def test_the_pack_runs_there_under_the_name_that_comfyui_gave_it(nodes):
    """ComfyUI's names for packs are its own, and what is sent names its classes by them."""
    handles = {
        name: nodes["LoadScail2MLX"]({"snapshot": str(GOLDENS / "snapshot"), "precision": "auto", "process": name})
        for name in PROCESSES
    }
    made = {
        name: nodes["Scail2T5Encode"]({"text_encoder": found[1], "prompt": "a puppet", "negative_prompt": ""})[0]
        for name, found in handles.items()
    }
    assert type(made["own"]).__module__.startswith("scail2_mlx_pack.")
    assert np.array_equal(made["own"].positive, made["shared"].positive)
    assert made["own"].encoder.store is handles["own"][1].store
    assert [found[0].store.elsewhere is None for found in handles.values()] == [True, False, True]
    assert handles["own"][1].store.loaded == ("t5_encoder",)
    neighbour = sys.modules["scail2_mlx_pack.nodes.neighbour"].neighbour()
    neighbour.release()
    assert handles["own"][1].store.loaded == ()


def test_a_parent_that_is_killed_leaves_nothing_behind():
    """The child is in the middle of a job then, and holds the parent's standard output, whose end is waited for."""
    code = (
        "import logging, os\n"
        "from mlx_backend.interface.events import LOGGER, Listener\n"
        "from mlx_backend.workers.pool import Pool\n"
        "class Killer(logging.Handler):\n"
        "    def emit(self, record): os.kill(os.getpid(), 9)\n"
        "LOGGER.addHandler(Killer())\n"
        "job = \"__import__('logging').getLogger('scail2_mlx').warning('begun') or __import__('time').sleep(600)\"\n"
        "Pool().call(eval, job, listener=Listener())\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def test_the_command_line_makes_the_same_frames_either_way(tmp_path):
    still = tmp_path / "still.npy"
    np.save(still, np.full((1, 64, 96, 3), 99, np.uint8))
    size = ["--width", "96", "--height", "64", "--steps", "1", "--cfg", "1", "--no-cache"]
    inputs = ["--model", str(GOLDENS / "snapshot"), "--reference", str(still), "--driving", str(still)]
    for process in ("own", "shared"):
        output = str(tmp_path / f"{process}.npy")
        assert main(["generate", *inputs, *size, "--output", output, "--process", process]) == 0
    assert np.array_equal(np.load(tmp_path / "own.npy"), np.load(tmp_path / "shared.npy"))


def test_auto_means_a_process_of_its_own_where_metal_computes(monkeypatch):
    machine = this_machine()
    monkeypatch.setattr("mlx_backend.workers.pool.this_machine", lambda: machine)
    assert not wants_own_process("auto")
    machine = replace(machine, on_gpu=True, system="Darwin")
    assert wants_own_process("auto")
    assert not wants_own_process("shared")


@pytest.mark.kills
def test_twenty_deaths_at_random_moments(here, away, pool, tmp_path):
    """Every run ends with the same frames, having made again the segment at most that was running."""
    since = time.monotonic()
    made(away, Recorder(), tmp_path / "undisturbed")
    seconds, deaths = time.monotonic() - since, 0
    for number, moment in enumerate(np.random.default_rng(0).uniform(0, seconds, KILLS)):
        listener = Recorder()
        killer = threading.Timer(moment, lambda: os.kill(pool.workers[0].pid, signal.SIGKILL))
        killer.start()
        assert np.array_equal(made(away, listener, tmp_path / str(number)), here[0])
        killer.join()
        deaths += sum("has ended (signal SIGKILL" in warning for warning in listener.warnings)
        again = sum(finished(listener.events, segment) for segment in (1, 2, 3)) - 3
        assert again in (0, 1), moment
    assert deaths >= KILLS - 1  # one after the last run's end is seen by nobody
