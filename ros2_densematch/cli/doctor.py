"""`densematch doctor`: what is here, what is missing, what that costs and the command that gets it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Final, Literal

from ros2_densematch import __version__, processor

OK: Final = "ok"
OPTIONAL: Final = "optional"
MISSING: Final = "MISSING"

# distribution, module, what does not work without it
_NEEDED = (
    ("numpy", "numpy", "everything"),
    ("opencv-python-headless", "cv2", "everything"),
    ("torch", "torch", "the learned matchers"),
    ("poselib", "poselib", "relative poses"),
    ("scipy", "scipy", "relative poses and the tracker"),
    ("rosbags", "rosbags", "bags in and out"),
    ("mcap", "mcap", "damaged MCAP bags"),
    ("lz4", "lz4", "compressed bags"),
    ("zstandard", "zstandard", "compressed bags"),
    ("pillow", "PIL", "orientation of images"),
    ("pydantic", "pydantic", "settings"),
    ("pyyaml", "yaml", "settings and calibration files"),
    ("safetensors", "safetensors", "weights"),
    ("matplotlib", "matplotlib", "plots in the report"),
    ("rich", "rich", "tables and progress"),
    ("typer", "typer", "the command line"),
)
_OPTIONAL = (
    ("lightning", "lightning", "densematch train", "pip install '.[train]' in the source folder"),
    (
        "onnxruntime",
        "onnxruntime",
        "--backend onnx, export onnx",
        "pip install '.[onnx]' in the source folder",
    ),
    ("pytest", "pytest", "make test", "pip install '.[dev]' in the source folder"),
)
# OpenCV comes under four names; whichever provides cv2 is the one to report.
_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what was looked for.
        state: "ok", "optional" (not here, and only the named thing needs it) or "MISSING" (needed).
        found: version or place, or why it is not usable.
        cost: what does not work, "" where all is well.
        remedy: the command that gets it, "" where all is well.
    """

    name: str
    state: Literal["ok", "optional", "MISSING"]
    found: str
    cost: str = ""
    remedy: str = ""


def command() -> int:
    """Say which versions, devices and weights are here, what is missing, what that costs and how to get it."""
    checks = [*python(), *packages(), *threads(), *gpu(), *ros(), *weights(), *matchers(), *definitions()]
    _print(checks)
    missing = [c.name for c in checks if c.state == MISSING]
    if missing:
        print(f"required but missing: {', '.join(missing)}")
        return 1
    print("all required components are installed")
    return 0


def python() -> list[Check]:
    """The interpreter and the cores that it may use."""
    version = platform.python_version()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = f"{version} at {sys.executable}"
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        first = Check("Python", OK, here)
    else:
        first = Check("Python", OPTIONAL, here, "not tested with this version", "use Python 3.10 to 3.13")
    return [
        first,
        Check("densematch", OK, f"{__version__} at {Path(__file__).parent.parent}"),
        Check("CPU cores", OK, str(cores)),
    ]


def threads() -> list[Check]:
    """How many threads the libraries use, and how these wait."""
    try:
        torch, cv2 = import_module("torch"), import_module("cv2")
    except Exception:  # noqa: BLE001  (a broken installation may raise anything; the packages' own lines say what)
        return []
    found = f"torch {torch.get_num_threads()}, OpenCV {cv2.getNumThreads()}"
    if processor.waits_quietly():
        return [Check("threads", OK, f"{found}; idle ones sleep (OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']})")]
    cost = "idle threads spin: this program and others running at the same time become several times slower"
    return [Check("threads", OPTIONAL, found, cost, processor.REMEDY)]


def packages() -> list[Check]:
    """The Python packages that densematch imports, by their versions."""
    rows = []
    for name, module, cost in _NEEDED:
        version, problem = _version(name, module)
        if problem:
            rows.append(Check(name, MISSING, problem, cost, f"pip install {name}"))
        else:
            rows.append(Check(name, OK, version))
    for name, module, cost, remedy in _OPTIONAL:
        version, problem = _version(name, module)
        rows.append(Check(name, OPTIONAL, problem, cost, remedy) if problem else Check(name, OK, version))
    return rows


def _version(distribution: str, module: str) -> tuple[str, str]:
    """(version, "") or ("", why it cannot be used)."""
    if importlib.util.find_spec(module) is None:
        return "", "not installed"
    try:
        imported = import_module(module)
    except Exception as error:  # noqa: BLE001  (a broken installation may raise anything; the table says what)
        return "", f"cannot be imported: {type(error).__name__}: {error}".splitlines()[0]
    for name in _OPENCV if module == "cv2" else (distribution,):
        try:
            return metadata.version(name), ""
        except metadata.PackageNotFoundError:
            continue
    return str(getattr(imported, "__version__", "version unknown")), ""


def gpu() -> list[Check]:
    """Whether CUDA computes: a device that is listed but fails at its first kernel does not count."""
    cost = "matching runs on the CPU and is several times slower"
    if importlib.util.find_spec("torch") is None:
        return [Check("GPU (CUDA)", OPTIONAL, "torch is not installed", cost, "pip install torch")]
    import torch

    if torch.version.cuda is None:
        driver = shutil.which("nvidia-smi") is not None
        found = f"torch {torch.__version__} is a CPU build" + (
            ", although an NVIDIA driver is installed" if driver else ""
        )
        remedy = "install a CUDA build of torch (pytorch.org/get-started)" if driver else "an NVIDIA GPU"
        return [Check("GPU (CUDA)", OPTIONAL, found, cost, remedy)]
    try:
        if not torch.cuda.is_available():
            raise RuntimeError("torch finds no CUDA device")
        torch.zeros(8, device="cuda").add_(1).sum().item()
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        found = f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB, CUDA {torch.version.cuda}"
        return [Check("GPU (CUDA)", OK, found)]
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return [Check("GPU (CUDA)", OPTIONAL, reason, cost, "check the driver with nvidia-smi")]


def ros() -> list[Check]:
    """rclpy, and our messages as ROS Python classes; both are for the live node only."""
    cost = "densematch live and the ROS node; bags work without it"
    distribution = os.environ.get("ROS_DISTRO", "")
    if importlib.util.find_spec("rclpy") is None:
        setups = sorted(Path("/opt/ros").glob("*/setup.bash"))
        remedy = f"source {setups[-1]}" if setups else "install ROS 2, or: pip install '.[ros]' in the source folder"
        rows = [Check("ROS 2 (rclpy)", OPTIONAL, "not importable", cost, remedy)]
    else:
        rows = [Check("ROS 2 (rclpy)", OK, distribution or "ROS_DISTRO is not set")]
    # `densematch` is also the name of the message package; a folder of that name without `msg` does not count.
    try:
        built = importlib.util.find_spec("densematch.msg") is not None
    except ModuleNotFoundError:
        built = False
    if built:
        return [*rows, Check("ROS messages", OK, "densematch.msg is built")]
    remedy = "make messages; in a ROS workspace: colcon build --packages-select densematch && source install/setup.bash"
    return [*rows, Check("ROS messages", OPTIONAL, "densematch.msg is not built", cost, remedy)]


def weights() -> list[Check]:
    """The weights that ship, compared with their SHA-256 in the catalogue."""
    from ros2_densematch.weights.catalogue import SHIPPED, path_of

    rows = []
    for name, entry in SHIPPED.items():
        cost = f"matcher {entry.matcher} has no trained weights"
        remedy = "pip install --force-reinstall --no-deps . in the source folder"
        try:
            path = path_of(name)
        except FileNotFoundError as error:
            rows.append(Check(f"weights {name}", MISSING, str(error), cost, remedy))
            continue
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != entry.sha256:
            wrong = f"SHA-256 is {found[:12]}…, expected {entry.sha256[:12]}…"
            rows.append(Check(f"weights {name}", MISSING, wrong, cost, remedy))
            continue
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        rows.append(Check(f"weights {name}", OK, f"{size}, SHA-256 {found[:12]}… verified, {entry.licence}"))
    return rows


def matchers() -> list[Check]:
    """The matchers that `--matcher` takes, and plugins that cannot be used, each with its error."""
    from ros2_densematch.matchers.registry import broken_plugins, list_matchers

    broken = broken_plugins()
    rows = [Check("matchers", OK, ", ".join(name for name in list_matchers() if name not in broken))]
    for name, why in broken.items():
        rows.append(Check(f"plugin {name}", OPTIONAL, why, "this matcher only"))
    return rows


def definitions() -> list[Check]:
    """The message definitions that bags are written with."""
    from ros2_densematch.files.shipped import share_folder
    from ros2_densematch.messages.definitions import message_definitions

    try:
        count = len(message_definitions())
        return [Check("message definitions", OK, f"{count} in {share_folder()}")]
    except (FileNotFoundError, ValueError) as error:
        return [Check("message definitions", MISSING, str(error), "result bags", "install the package again")]


def _print(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("", "component", "found", "effect if missing", "remedy"):
        table.add_column(heading, overflow="fold")
    colours = {OK: "green", OPTIONAL: "yellow", MISSING: "bold red"}
    for check in checks:
        texts = (Text(t) for t in (check.name, check.found, check.cost, check.remedy))
        table.add_row(Text(check.state, colours[check.state]), *texts)
    # Folded commands cannot be copied: in a file or pipe the table is as wide as it needs to be.
    console = Console()
    Console(width=console.width if console.is_terminal else 200).print(table)
