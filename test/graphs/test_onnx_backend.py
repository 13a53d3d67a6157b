"""`backend="onnx"`: the same matches from ONNX Runtime, from a graph that is written once."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from ros2_densematch.cli.main import main
from ros2_densematch.configuration import configuration_from
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.graphs.runtime import DamagedGraph, Session, choose_providers
from ros2_densematch.live import core
from ros2_densematch.matchers.identity import runtime_of
from ros2_densematch.matchers.onnx_network import OnnxNetwork
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.simulation.flight import demo_camera, demo_flight
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.worlds import workshop

NEAR_PX, SHARE = 0.05, 0.99


def pictures_of(folder: Path, count: int) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".png"))[:count]


def picture(path: Path, side: int = 480) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    scale = min(1.0, side / max(image.shape[:2]))
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1])


def share_of(first: Correspondences, second: Correspondences) -> tuple[int, int]:
    """How many matches of the first the second has too, both ends within `NEAR_PX`, and how many there are."""
    a, b = (np.hstack([m.reference_xy, m.query_xy]) for m in (first, second))
    if len(a) == 0 or len(b) == 0:
        return 0, len(a)
    return int((cKDTree(b).query(a, p=np.inf)[0] < NEAR_PX).sum()), len(a)


def same_matches(name: str, preset: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    matchers = [load_matcher(name, device="cpu", preset=preset, backend=backend) for backend in ("torch", "onnx")]
    there = total = 0
    for reference, query in pairs:
        torch_m, onnx_m = (m.match(m.encode(reference, reference=True), m.encode(query)) for m in matchers)
        for pair in ((torch_m, onnx_m), (onnx_m, torch_m)):
            found, count = share_of(*pair)
            there, total = there + found, total + count
    assert total > 400 * len(pairs)
    assert there >= SHARE * total


@pytest.fixture(scope="module")
def rendered() -> list[tuple[np.ndarray, np.ndarray]]:
    scene, camera = workshop(), demo_camera(320, 240)
    poses = demo_flight().T_world_from_camera
    views = [np.asarray(render(scene, camera, T).image) for T in poses[20:28:2]]
    return list(pairwise(views))


@pytest.mark.parametrize("name", ["gcm", "condl"])
def test_matches_of_rendered_views_are_the_same(
    graphs: Path, rendered: list[tuple[np.ndarray, np.ndarray]], name: str
) -> None:
    same_matches(name, "base", rendered)
    assert [p.name.startswith(f"{name}-network-") for p in graphs.iterdir()].count(True) == 1


@pytest.mark.slow
def test_matches_of_photos_are_the_same(graphs: Path, shared_data: Any) -> None:
    folders = sorted(p for p in shared_data.need("train_multiview/photos").iterdir() if p.is_dir())
    pairs = [(picture(a), picture(b)) for a, b in (pictures_of(folder, 2) for folder in folders[:10])]
    assert len(pairs) == 10
    same_matches("gcm", "fast", pairs)


def test_any_size_goes_through_one_graph(graphs: Path) -> None:
    matcher = load_matcher("gcm", device="cpu", backend="onnx")
    assert isinstance(matcher.network, OnnxNetwork)  # type: ignore[attr-defined]
    network = matcher.network  # type: ignore[attr-defined]
    for height, width in ((16, 16), (16, 640), (48, 32), (240, 320)):
        image = torch.rand(1, 3, height, width)
        with torch.inference_mode():
            for found, wanted in zip(network(image), network.original(image), strict=True):
                assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max()))


def test_the_graph_is_written_once_and_again_when_it_is_damaged(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ros2_densematch.graphs import cache

    load_matcher("condl", device="cpu", backend="onnx")
    (file,) = (p for p in graphs.iterdir() if p.name.startswith("condl-"))
    before = file.read_bytes()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("written again")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "write_onnx", never)
        load_matcher("condl", device="cpu", backend="onnx", max_pixels=10_000)
        other = load_matcher("condl", device="cpu", weights="random")
        with pytest.raises(AssertionError, match="written again"):
            type(other)(device="cpu", weights="random", backend="onnx")
    file.write_bytes(before[: len(before) // 2])
    with pytest.raises(DamagedGraph, match="cannot be loaded by ONNX Runtime"):
        Session(file, "cpu")
    load_matcher("condl", device="cpu", backend="onnx")
    assert len(file.read_bytes()) > 0.9 * len(before)


def test_threads_are_those_of_torch(graphs: Path) -> None:
    load_matcher("condl", device="cpu", backend="onnx")
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            matcher = load_matcher("condl", device="cpu", backend="onnx")
            assert f"CPU, {count} thread" in runtime_of(matcher)
            session = matcher.network.session._session  # type: ignore[attr-defined]
            assert session.get_session_options().intra_op_num_threads == count
    finally:
        torch.set_num_threads(before)


def test_commands_take_it_and_say_what_runs(
    graphs: Path, rendered: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, image in zip(files, rendered[0], strict=True):
        cv2.imwrite(str(file), image[..., ::-1])
    out = tmp_path / "out"
    assert main(["match", *map(str, files), "--backend", "onnx", "--device", "cpu", "--out", str(out)]) == 0
    assert "network: ONNX Runtime" in capsys.readouterr().err
    assert json.loads((out / "summary.json").read_text())["matcher"]["runtime"].startswith("ONNX Runtime")
    small = ["--size", "160x120", "--repeat", "1", "--against", "none"]
    assert main(["bench", *map(str, files), "--backend", "torch,onnx", "--preset", "turbo", *small]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| gcm")]
    assert [row.split("|")[1].strip() for row in rows] == ["gcm", "gcm (onnx)"]


def test_the_node_has_it_as_a_parameter(graphs: Path) -> None:
    values = {"matcher": "gcm", "preset": "turbo", "device": "cpu", "backend": "onnx"}
    loaded = core.load(configuration_from(values))
    assert loaded.runtime.startswith("ONNX Runtime")
    assert core.load(configuration_from({**values, "backend": "torch"})).runtime == ""
    with pytest.raises(ValueError, match="backend"):
        configuration_from({"backend": "tensorrt"})


def test_other_matchers_name_their_backends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="sift runs with backend torch, got backend='onnx'"):
        load_matcher("sift", backend="onnx")
    with pytest.raises(ValueError, match="gcm runs with backend torch or onnx, got backend='tensorrt'"):
        load_matcher("gcm", backend="tensorrt")
    assert main(["match", "sample/a.jpg", "sample/b.jpg", "--backend", "tensorrt", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("densematch: error: --backend 'tensorrt'")


def test_a_missing_runtime_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ros2_densematch.graphs import packages

    def without(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(packages, "import_module", without)
    assert main(["match", "sample/a.jpg", "sample/b.jpg", "--backend", "onnx", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'onnxruntime'" in line
    assert "-m pip install onnx onnxruntime onnxscript" in line.replace(" -c constraints-ros.txt", "")


GPU, OPENVINO, CPU = "CUDAExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("present", "device", "wanted", "reason"),
    [
        ([CPU], "auto", (CPU,), "this package has no CUDA and no OpenVINO"),
        ([OPENVINO, CPU], "auto", (OPENVINO, CPU), ""),
        (["TensorrtExecutionProvider", GPU, CPU], "auto", (GPU, CPU), ""),
        ([GPU, CPU], "cpu", (CPU,), "device cpu was asked for"),
        ([GPU, CPU], "cuda:1", (GPU, CPU), ""),
    ],
)
def test_the_best_provider_is_taken(present: list[str], device: str, wanted: tuple[str, ...], reason: str) -> None:
    assert choose_providers(present, device) == (wanted, reason)


def test_cuda_is_not_replaced_in_silence() -> None:
    with pytest.raises(ValueError, match="device 'cuda' was asked for, but this ONNX Runtime has no CUDA"):
        choose_providers([CPU], "cuda")
