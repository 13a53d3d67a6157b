"""`densematch export onnx`: what is written runs in ONNX Runtime and agrees with PyTorch, or nothing is written."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.cli.main import main
from ros2_densematch.files.results_folder import ForeignFileError
from ros2_densematch.graphs.export import compare, on_cpu, write_onnx
from ros2_densematch.graphs.graph import Graph
from ros2_densematch.graphs.packages import MissingPackage
from ros2_densematch.io.exports.onnx import write_graphs
from ros2_densematch.matchers.network import NetworkMatcher
from ros2_densematch.matchers.registry import list_matchers, load_matcher, matcher_class
from ros2_densematch.weights.catalogue import SHIPPED


class Doubled(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return 2 * image


class Sampled(nn.Module):
    """Samples a tensor of five dimensions."""

    def forward(self, image: Tensor) -> Tensor:
        grid = torch.zeros(1, 2, 2, 2, 3)
        return functional.grid_sample(image[:, :, None].repeat(1, 1, 2, 1, 1), grid, align_corners=False)


def small(module: nn.Module, **facts: Any) -> Graph:
    return Graph(
        "toy encoder", module.eval(), {"image": torch.rand(1, 3, 8, 12)}, {"out": "twice"}, {"image": ""}, **facts
    )


def run(file: Path, *inputs: np.ndarray) -> list[np.ndarray]:
    session = pytest.importorskip("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True)))


def test_the_command_writes_a_graph_and_says_what_it_is(onnx_packages: None, tmp_path: Path) -> None:
    import onnx

    command = ["export", "onnx", "gcm", "--preset", "fast", "--size", "320x200", "--out", str(tmp_path)]
    assert main(command) == 0
    file = tmp_path / "gcm-fast-encoder-320x200.onnx"
    about = json.loads(file.with_suffix(".json").read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{file.stem}.json", file.name]
    assert about["file"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert about["weights"] == [
        {"name": "gcm.safetensors", "sha256": SHIPPED["gcm"].sha256, "licence": SHIPPED["gcm"].licence}
    ]
    assert about["inputs"]["image"]["shape"] == [1, 3, 200, 320]
    assert about["outputs"]["keypoints"]["shape"] == [1, 2048, 2]
    assert about["working_size"] == about["image_size"] == [320, 200]
    assert set(about["versions"]) == {"densematch", "torch", "onnx", "onnxscript", "onnxruntime"}
    assert max(about["largest_difference_from_torch"].values()) < 1e-4
    model = onnx.load(str(file))
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert {n.domain for n in model.graph.node} == {""}
    image = np.random.default_rng(0).random((1, 3, 200, 320), np.float32)
    found = dict(zip(about["outputs"], run(file, image), strict=True))
    assert np.allclose(np.linalg.norm(found["descriptors"], axis=1), 1, atol=1e-4)
    assert [list(a.shape) for a in found.values()] == [o["shape"] for o in about["outputs"].values()]
    # again, in place of the earlier one
    before = file.stat().st_ino
    assert main(command) == 0
    assert file.stat().st_ino != before


def test_sides_can_be_left_open(onnx_packages: None, tmp_path: Path) -> None:
    matcher = load_matcher("condl", device="cpu", max_pixels=20_000)
    ((file, written),) = write_graphs(matcher, "", tmp_path, (160, 120), dynamic=True)
    about = json.loads(file.with_suffix(".json").read_text())
    assert file.name == "condl-base-encoder-dynamic.onnx"
    assert about["sides_are_multiples_of"] == 4
    assert about["image_size"] is None
    assert all(isinstance(side, str) for side in written.shapes["image"][2:])
    image = torch.rand(1, 3, 96, 64)
    assert isinstance(matcher, NetworkMatcher)
    picture = np.zeros((64, 64, 3), np.uint8)
    with torch.inference_mode():
        wanted = matcher.graph("encoder", picture, picture).module(image)
    assert np.allclose(run(file, image.numpy())[0], wanted.numpy(), atol=1e-4)


def test_a_graph_that_does_not_agree_is_refused() -> None:
    graph = small(Doubled())
    wanted = (torch.ones(1, 3, 8, 12),)
    assert compare(graph, wanted, wanted) == {"out": 0.0}
    with pytest.raises(ValueError, match=r"out of the toy encoder differs from PyTorch in 100\.0%"):
        compare(graph, wanted, (1.1 * wanted[0],))
    with pytest.raises(ValueError, match="differs from PyTorch in 100"):
        compare(graph, wanted, (torch.full_like(wanted[0], float("nan")),))
    with pytest.raises(ValueError, match="has shape"):
        compare(graph, wanted, (wanted[0][..., :4],))


def test_rows_of_a_table_may_change_places_but_not_content() -> None:
    graph = Graph("toy", Doubled(), {}, {"xy": "", "value": ""}, {}, table=("xy", "value"))
    xy, value = torch.arange(400.0).view(1, 200, 2), torch.rand(1, 200)
    order = torch.randperm(200)
    assert compare(graph, (xy, value), (xy[:, order], value[:, order])) == {"xy": 0.0, "value": 0.0}
    with pytest.raises(ValueError, match="value of the toy differs"):
        compare(graph, (xy, value), (xy[:, order], value))
    with pytest.raises(ValueError, match="only 100 of 200 rows"):
        compare(graph, (xy, value), (torch.where(torch.arange(200)[:, None] < 100, xy, xy + 0.5), value))


def test_what_runtimes_cannot_do_is_not_written(onnx_packages: None, tmp_path: Path) -> None:
    file = tmp_path / "toy.onnx"
    with pytest.raises(ValueError, match="samples a tensor of 5 dimensions"):
        write_onnx(small(Sampled()), file)
    with pytest.raises(ValueError, match="has a fixed size: leave out --dynamic"):
        write_onnx(small(Doubled()), file, dynamic=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_somebody_else_stays(onnx_packages: None, tmp_path: Path) -> None:
    file = tmp_path / "condl-base-encoder-160x120.onnx"
    file.write_bytes(b"mine")
    with pytest.raises(ForeignFileError, match="was not written by densematch"):
        list(write_graphs(load_matcher("condl", device="cpu"), "", tmp_path, (160, 120)))
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["onnxruntime", "onnx", "onnxscript"])
def test_a_missing_package_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ros2_densematch.graphs import packages

    real = packages.import_module
    others: Any = type(sys)("others")

    def without(module: str) -> Any:
        if module == name:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return others if module in ("onnxruntime", "onnx", "onnxscript") else real(module)

    monkeypatch.setattr(packages, "import_module", without)
    assert main(["export", "onnx", "condl", "--size", "64x64", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"'{name}'" in error
    assert "-m pip install onnx onnxruntime onnxscript" in error.replace(" -c constraints-ros.txt", "")
    assert 'pip install ".[onnx]"' in error
    with pytest.raises(MissingPackage, match=r"pip install onnx onnxruntime onnxscript"):
        packages.package(name)


def test_matchers_without_a_graph_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "onnx", "sift", "--out", str(tmp_path)]) == 2
    assert "sift has no part that can be exported" in capsys.readouterr().err
    assert main(["export", "onnx", "gcm", "--size", "640", "--out", str(tmp_path)]) == 2
    assert "write WIDTHxHEIGHT" in capsys.readouterr().err


def test_the_page_lists_what_every_matcher_exports(repository: Path) -> None:
    page = (repository / "docs/onnx.md").read_text()
    for name in list_matchers():
        found = matcher_class(name)
        parts = found.PARTS if issubclass(found, NetworkMatcher) else ()
        backend = "yes" if "onnx" in found.BACKENDS else "no"
        assert f"| `{name}` | {', '.join(parts) or 'nothing'} | {backend} |" in page


def test_a_copy_is_made_only_where_it_is_needed() -> None:
    module = nn.Conv2d(1, 1, 1)
    assert on_cpu(module) is module
    half = nn.Conv2d(1, 1, 1).half()
    assert on_cpu(half) is not half
    assert next(on_cpu(half).parameters()).dtype == torch.float32
    assert next(half.parameters()).dtype == torch.float16


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("tiny_roma", {"max_pixels": 12_288}, 2),
        ("ncnet", {"longer_side": 128}, 2),
        ("dkm", {"coarse_size": (96, 128), "upsample_size": None}, 1),
        ("roma", {"coarse_size": (112, 112), "upsample_size": None}, 1),
    ],
)
def test_every_other_part_is_written(
    onnx_packages: None, tmp_path: Path, name: str, options: dict[str, Any], count: int
) -> None:
    """With random weights: each file is compared with PyTorch as it is written."""
    matcher = load_matcher(name, device="cpu", weights="random", **options)
    written = list(write_graphs(matcher, "random", tmp_path, (128, 96)))
    assert len(written) == count
    for file, facts in written:
        assert max(facts.difference.values()) < 1e-4
        assert json.loads(file.with_suffix(".json").read_text())["weights"][0]["name"] == "random"
