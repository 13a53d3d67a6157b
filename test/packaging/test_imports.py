"""Imports run one way, are light, and name only what the package declares (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# From the bottom up: a module imports from its own layer's folder and from lower layers.
LAYERS = [
    {"arrays", "deprecation", "files", "processor"},
    {"geometry"},
    {"nn", "weights"},
    {"graphs"},
    {"matchers"},
    {"tracking"},
    {"messages", "configuration"},
    {"io"},
    {"evaluation", "simulation"},
    {"live", "training", "api"},
    {"cli"},
]
# The same inside parts that have floors of their own; what is not named stands with the part's other files.
FLOORS = {
    "io": [{"sources", "results"}, {"exports"}],
    "training": [
        {"images", "fingerprint"},
        {"scenes"},
        {"data"},
        {"recipe"},
        {"stages"},
        {"run"},
    ],
}
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
ROS = {"rclpy", "rcl_interfaces"}
# folder -> the extra whose packages it may use
OPTIONAL = {"evaluation/fleet": "ray", "evaluation/peers": "peers"}
MODULE_OF = {"opencv-python-headless": "cv2", "pyyaml": "yaml", "pillow": "PIL"}


def imports(path: Path) -> list[str]:
    """Full names of what a file imports, inside functions and for type checking too."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.fixture(scope="module")
def modules(repository: Path) -> dict[Path, list[str]]:
    return {path: imports(path) for path in sorted((repository / "ros2_densematch").rglob("*.py"))}


def part_of(path: Path, repository: Path) -> str:
    """`geometry` of ros2_densematch/geometry/camera.py, `configuration` of ros2_densematch/configuration.py."""
    return path.relative_to(repository / "ros2_densematch").parts[0].removesuffix(".py")


def test_every_folder_has_its_place(repository: Path) -> None:
    parts = {part_of(path, repository) for path in (repository / "ros2_densematch").rglob("*.py")}
    assert parts - {"__init__", "__main__"} <= set(LEVEL)


def test_imports_run_one_way(repository: Path, modules: dict[Path, list[str]]) -> None:
    against = []
    for path, names in modules.items():
        part = part_of(path, repository)
        if part not in LEVEL:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if package != "ros2_densematch" or other not in LEVEL or other == part:
                continue
            if LEVEL[other] >= LEVEL[part]:
                against.append(f"{path.relative_to(repository)} imports {name}")
    assert not against


@pytest.mark.parametrize("part", FLOORS)
def test_imports_inside_a_part_run_one_way(repository: Path, modules: dict[Path, list[str]], part: str) -> None:
    level = {name: k for k, floor in enumerate(FLOORS[part]) for name in floor}
    folder = repository / "ros2_densematch" / part
    against = []
    for path in sorted(folder.rglob("*.py")):
        own = path.relative_to(folder).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in level, f"{path.relative_to(repository)} has no place in FLOORS"
        for name in modules[path]:
            if not name.startswith(f"ros2_densematch.{part}."):
                continue
            other = name.split(".")[2]
            if other != own and level[other] >= level[own]:
                against.append(f"{path.relative_to(repository)} imports {name}")
    assert not against


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that lie on common circles (Tarjan's strongly connected components of more than one node)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group, stack[at:] = stack[at:], []
            if len(group) > 1 or node in graph.get(node, ()):
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}) == [["b", "c"], ["d"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_module_imports_itself_by_way_of_others(repository: Path, modules: dict[Path, list[str]]) -> None:
    """Also not inside functions: a circle that is hidden there is one for every reader."""
    known = {module_name(path, repository): path for path in modules}
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        graph[module] = set()
        for name in modules[path]:
            home = name if name in known else name.rpartition(".")[0]
            if home in known and home != module:
                graph[module].add(home)
    # The package's front door names what it shows; inside, it is imported for the version alone.
    graph.pop("ros2_densematch", None)
    assert circles(graph) == []


def module_name(path: Path, repository: Path) -> str:
    """`ros2_densematch.geometry.camera` of ros2_densematch/geometry/camera.py, a package's name of its __init__.py."""
    parts = path.relative_to(repository).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_matchers_do_not_borrow_from_each_other(repository: Path, modules: dict[Path, list[str]]) -> None:
    """A matcher's folder or file is its own; what several need is in matchers/common or nn."""
    prefix = "ros2_densematch.matchers."
    folders = {path.parent.name for path in (repository / "ros2_densematch" / "matchers").glob("*/__init__.py")}
    matchers = folders - {"common"}
    assert {"gcm", "sift"} <= matchers
    borrowing = []
    for path, imported in modules.items():
        own = module_name(path, repository)
        if not own.startswith(prefix):
            continue
        matcher = own.removeprefix(prefix).partition(".")[0]
        for name in imported:
            other = name.removeprefix(prefix).partition(".")[0]
            if name.startswith(prefix) and other in matchers - {matcher}:
                borrowing.append(f"{path.relative_to(repository)} imports {name}")
    assert not borrowing


def test_only_the_ros_files_of_the_node_import_rclpy(modules: dict[Path, list[str]]) -> None:
    using = {path for path, names in modules.items() if ROS & {n.partition(".")[0] for n in names}}
    assert using == {path for path in modules if path.parent.name == "live" and path.name.startswith("ros_")}
    # and nobody imports those but the command, when it runs, and each other
    users = {p for p, names in modules.items() if any(n.startswith("ros2_densematch.live.ros_") for n in names)}
    assert {p.name for p in users - using} == {"live.py"}


def test_what_is_imported_is_declared(repository: Path, modules: dict[Path, list[str]]) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]

    def declared(lines: list[str]) -> set[str]:
        names = {Requirement(line).name for line in lines}
        return {MODULE_OF.get(name, re.sub("-", "_", name)) for name in names} | {"ros2_densematch"}

    always = declared(project["dependencies"])
    training = always | declared(project["optional-dependencies"]["train"])
    missing = []
    for path, names in modules.items():
        allowed = training if part_of(path, repository) == "training" else always
        optional = OPTIONAL.get("/".join(path.relative_to(repository / "ros2_densematch").parts[:2]))
        allowed = allowed | (declared(project["optional-dependencies"][optional]) if optional else set())
        allowed = allowed | (ROS if path.name.startswith("ros_") else set())
        tops = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - allowed
        missing += [f"{path.relative_to(repository)} imports {top}" for top in sorted(tops)]
    assert not missing


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, ros2_densematch; print(*(set(sys.modules) & {'torch', 'cv2', 'numpy', 'matplotlib', 'rclpy'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from ros2_densematch.cli.main import main; assert main(['--help']) == 0;"
        "print(sorted(set(sys.modules) & {'torch', 'cv2', 'matplotlib', 'rosbags'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
