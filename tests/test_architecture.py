"""The rules of the house: who may import whom, and what must not happen at import."""

import ast
import functools
import subprocess
import sys

import pytest
from support import ROOT

BACKEND = "mlx_backend"
# Which packages of the backend each one may import, besides itself.
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
    "workers": {"interface", "runtime", "pipelines"},
    "diagnostics": {"interface", "members", "models", "planning", "runtime", "weights"},
    "cli": {"interface", "members", "planning", "runtime", "media", "weights", "pipelines", "workers", "diagnostics"},
}
# Around the backend: who may import whom. The demo makes pictures with the nodes alone; nothing that users run needs
# tools, training, world or benchmarks, which are not published.
AROUND = {
    "nodes": {"interface", "runtime", "media", "members", "weights", "pipelines", "workers", "diagnostics"},
    "demo": {"interface", "runtime", "media"},
    "world": set(),
    "tools": {"interface", "runtime", "media", "members", "weights", "demo", "world"},
    "training": {"interface", "runtime", "members", "models", "weights", "conditioning", "pipelines", "world"},
    "benchmarks": {*ALLOWED, "demo", "training", "world"},
}
TABLE = ALLOWED | AROUND
# Where nothing that runs at import leads to MLX, by whatever way: ComfyUI loads the nodes on machines without it.
NO_MLX_AT_IMPORT = ("interface", "members", "media", "cli", "nodes")
# What members encode with: imported when a run is made, not with the row.
ENCODERS = (
    "mlx_backend/members/scail2/streams.py",
    "mlx_backend/members/scail2/comfy_streams.py",
    "mlx_backend/members/wan/pictures.py",
)
FOREIGN = {"torch", "comfy", "comfy_api", "folder_paths"}
MAX_LINES = 400
MAX_BODY = 45  # lines, a screen
# Tables of declarations (sockets with their tooltips, options of a command), which read best in one piece.
DECLARATIONS = {"define_schema", "add_command", "_inputs"}


def modules(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def named(path):
    return path.relative_to(ROOT).as_posix()


def each(*folders):
    """Parametrise a test over the files of some folders."""
    return pytest.mark.parametrize("path", modules(*folders), ids=named)


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def at_import(statements):
    """Yield the statements that run when a module is imported, those of its functions left out."""
    for statement in statements:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from at_import(statement.orelse)
        elif not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield statement
            for block in ("body", "orelse", "finalbody"):
                yield from at_import(getattr(statement, block, ()))


def imported(path, statements):
    """Yield what is imported as parts from the repository's root or of a library: ("mlx_backend", "media", "fit")."""
    folder = path.relative_to(ROOT).parent.parts
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            module = node.module.split(".") if node.module else ()
            yield from ((*above, *module, alias.name) for alias in node.names)


def package(parts):
    """Return the entry of the table that a file or an import belongs to."""
    return parts[1] if parts[0] == BACKEND and len(parts) > 1 else parts[0]


@functools.cache
def needed_at_import(path):
    """Return the files of the repository that importing a file runs, and whether it imports MLX itself."""
    needed = list(imported(path, at_import(parsed(path).body)))
    stems = {ROOT.joinpath(*parts[:length]) for parts in needed for length in range(1, len(parts) + 1)}
    files = [stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py") for stem in sorted(stems)]
    return [file for file in files if file.is_file()], any(parts[0] == "mlx" for parts in needed)


def without_mlx(path):
    """Whether a file is one that must not lead to MLX."""
    return package(path.relative_to(ROOT).parts[:-1]) in NO_MLX_AT_IMPORT and named(path) not in ENCODERS


def way_to_mlx(path, seen):
    """Return the files by which importing one leads to MLX, itself first, or none.

    Files that must not lead there are judged on their own; `seen` are those that need no second look.
    """
    files, direct = needed_at_import(path)
    if direct:
        return [path]
    seen.add(path)
    ways = (way_to_mlx(file, seen) for file in files if file not in seen and not without_mlx(file))
    return next(([path, *way] for way in ways if way), [])


@each(BACKEND, *AROUND)
def test_imports_follow_the_table(path):
    here = path.relative_to(ROOT).parts
    own = package(here[:-1])
    for parts in imported(path, ast.walk(parsed(path))):
        if here[0] == BACKEND:
            assert parts[0] not in FOREIGN, f"the backend must not import {parts[0]}"
        if parts[0] in {BACKEND, *AROUND}:
            assert package(parts) in {own, *TABLE.get(own, ALLOWED)}, f"{own} must not import {'.'.join(parts)}"


def test_the_table_names_every_package():
    inside = {path.parent.name for path in (ROOT / BACKEND).glob("*/__init__.py")}
    around = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {BACKEND, "tests"}
    assert (inside, around) == (ALLOWED.keys(), AROUND.keys())


@pytest.mark.parametrize("path", [path for path in modules(BACKEND, *AROUND) if without_mlx(path)], ids=named)
def test_packages_without_mlx_do_not_lead_to_it(path):
    way = way_to_mlx(path, set())
    assert not way, " -> ".join(named(file) for file in way)


@each(BACKEND, *AROUND)
def test_files_stay_readable(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def too_long(path):
    """Return the functions of a file whose bodies, docstrings left out, fill more than a screen."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name not in DECLARATIONS:
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and body[-1].end_lineno - body[0].lineno >= MAX_BODY:
                found.append(f"{named(path)} {node.name}")
    return found


@each(BACKEND, *AROUND)
def test_a_function_fits_on_a_screen(path):
    assert not too_long(path)


@each(BACKEND)
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
