"""The rules of the house: who may import whom, and what must not happen at import."""

import ast
import subprocess
import sys

import pytest
from support import ROOT

BACKEND = ROOT / "mlx_backend"
# Which packages each one may import, besides itself.
ALLOWED = {
    "interface": set(),
    "runtime": {"interface"},
    "media": {"interface"},
    "models": {"interface"},
    "members": {"interface", "models", "media", "conditioning"},
    "planning": {"interface", "members", "models"},
    "sampling": {"interface", "runtime"},
    "weights": {"interface", "members", "models", "planning", "runtime"},
    "conditioning": {"interface", "models", "media"},
    "pipelines": {
        *("interface", "members", "models", "planning", "runtime", "media", "sampling", "weights", "conditioning")
    },
    "diagnostics": {"interface", "members", "models", "planning", "runtime", "weights"},
    "cli": {"interface", "members", "planning", "runtime", "media", "weights", "pipelines", "diagnostics"},
}
NO_MLX_AT_IMPORT = ("interface", "members", "media", "cli")
# What members encode with: imported when a run is made, not with the row.
ENCODERS = ("members/scail2/streams.py", "members/scail2/comfy_streams.py")
FOREIGN = {"torch", "comfy", "comfy_api", "folder_paths", "nodes"}
MAX_LINES = 400


def modules():
    return sorted(path for path in BACKEND.rglob("*.py"))


def imports(path, *, top_level_only=False):
    """Yield (level, module) of each import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_table(path):
    package, *_ = here = path.relative_to(BACKEND).parts[:-1] or ("",)
    for level, module in imports(path):
        if level and package in ALLOWED:
            target = (*here[: len(here) - level + 1], *module.split("."))[0]
            assert target == package or target in ALLOWED[package], f"{package} must not import {target} ({module})"
        if level == 0:
            assert module.split(".")[0] not in FOREIGN, f"the backend must not import {module}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_without_mlx_do_not_import_it(path):
    here = path.relative_to(BACKEND)
    if here.parts[0] in NO_MLX_AT_IMPORT and here.as_posix() not in ENCODERS:
        assert all(module.split(".")[0] != "mlx" for _, module in imports(path, top_level_only=True))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_readable(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_array_is_made_at_import(path):
    """MLX's streams belong to a thread, and ComfyUI imports in another thread than it executes in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

    def outside_functions(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, functions):
                for part in (*child.args.defaults, *(d for d in child.args.kw_defaults if d is not None)):
                    yield from ast.walk(part)
                continue
            yield child
            yield from outside_functions(child)

    calls = [node for node in outside_functions(tree) if isinstance(node, ast.Call)]
    made = [node for node in calls if isinstance(node.func, ast.Attribute) and ast.unparse(node.func).startswith("mx.")]
    assert not made, ast.unparse(made[0])


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def hide(*modules):
    """Return code that makes the modules impossible to import."""
    return "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in modules)


def test_the_pack_imports_and_its_schemas_stand_without_mlx():
    code = hide("mlx", "mlx.core") + (
        "import asyncio, importlib.metadata as metadata\n"
        "found = metadata.version\n"
        "def version(name):\n"
        "    if name == 'mlx': raise metadata.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "metadata.version = version\n"
        "from demo.pack import load_pack\n"
        "pack = load_pack()\n"
        "nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())\n"
        "print([node.GET_SCHEMA().node_id for node in nodes])\n"
        "try: nodes[0].execute(snapshot='x', precision='auto')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = run_python(code)
    assert "LoadScail2MLX" in done.stdout, done.stderr
    assert "DependencyError" in done.stdout
    assert "pip install -U mlx" in done.stdout


def test_the_backend_runs_without_torch(tmp_path):
    code = hide("torch", "comfy", "comfy_api") + (
        "from mlx_backend.cli.main import main\n"
        "import numpy as np\n"
        f"folder = {str(tmp_path)!r}\n"
        "np.save(folder + '/r.npy', np.zeros((1, 64, 96, 3), np.uint8))\n"
        "np.save(folder + '/d.npy', np.zeros((1, 64, 96, 3), np.uint8))\n"
        "sys.exit(main(['generate', '--model', 'tests/data/goldens/snapshot', '--reference', folder + '/r.npy',"
        " '--driving', folder + '/d.npy', '--width', '96', '--height', '64', '--steps', '1', '--cfg', '1',"
        " '--output', folder + '/o.npy']))"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.npy").is_file()
