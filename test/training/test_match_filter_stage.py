"""The match filter stage: judged graphs that depend on their number alone, a filter that learns, weights that load."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ros2_densematch.matchers.gcm.candidates import Candidates
from ros2_densematch.matchers.gcm.match_filter import EDGE_FEATURES, NEIGHBOURS, NODE_FEATURES
from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.simulation import textures
from ros2_densematch.training.data.judged import JudgedViews
from ros2_densematch.training.data.multiview import JudgedPhotoSets
from ros2_densematch.training.data.pairs_csv import CsvPairs
from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.photos import HomographyPairs, JudgedPhotos
from ros2_densematch.training.data.scenes import ViewPair
from ros2_densematch.training.images import ImageStore
from ros2_densematch.training.recipe import Recipe
from ros2_densematch.training.run.trainer import train
from ros2_densematch.training.stages.match_filter import (
    MAX_MATCHES,
    GraphDataset,
    MatchFilterConfig,
    MatchFilterModule,
    _padded,
    perturb_matches,
)
from ros2_densematch.weights.catalogue import path_of

K = np.array([[200.0, 0, 99.5], [0, 200.0, 74.5], [0, 0, 1]])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two photos."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "train_photos").mkdir()
    for seed in range(2):
        paint = textures.gallery((textures.plaster, textures.brick)[seed], 10)
        picture = paint(420, 520, 160.0, np.random.default_rng(seed))
        cv2.imwrite(str(folder / "train_photos" / f"{seed}.png"), picture[..., ::-1])
    return folder


def dataset(
    data: Path, folder: Path, *, seed: int = 0, count: int = 2, astray: float = 0.0, network: str = "0123abcdef"
) -> GraphDataset:
    return GraphDataset(
        GcmMatcher(device="cpu", filter=False, hypotheses=False),
        [(JudgedPhotos(HomographyPairs(data / "train_photos"), size=192), 1.0)],
        count,
        folder,
        seed=seed,
        photometric=PhotometricConfig(strength=0.3),
        network=network,
        astray=astray,
    )


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_graph_depends_on_seed_and_number_only(data: Path, tmp_path: Path) -> None:
    first, second, other = (dataset(data, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    forwards, backwards = [first[0], first[1]], [second[1], second[0]][::-1]
    assert same(forwards[0], backwards[0])
    assert same(forwards[1], backwards[1])
    assert not same(forwards[0], forwards[1])
    assert not same(forwards[0], other[0])


def test_a_graph_is_made_once_and_comes_round_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = dataset(data, tmp_path)
    first = graphs[0]
    assert [path.name for path in tmp_path.iterdir()] == ["candidates_0123abcd_0_00000.safetensors"]

    def never(*_: object) -> None:
        raise AssertionError("the graph was made again")

    monkeypatch.setattr(GraphDataset, "_make", never)
    assert same(graphs[0], first)
    assert same(graphs[2], first)  # two graphs: sample 2 is graph 0


def test_candidates_of_another_network_are_not_taken_for_its_own(data: Path, tmp_path: Path) -> None:
    for network in ("0123abcdef", "fedcba3210"):
        dataset(data, tmp_path, network=network)[0]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["candidates_0123abcd_0_00000.safetensors", "candidates_fedcba32_0_00000.safetensors"]


def test_a_graph_has_the_agreed_shapes_and_both_verdicts(data: Path, tmp_path: Path) -> None:
    graph = dataset(data, tmp_path)[0]
    count = int(graph["count"])
    assert 50 < count <= MAX_MATCHES
    assert graph["nodes"].shape == (MAX_MATCHES, NODE_FEATURES)
    assert graph["edges"].shape == (MAX_MATCHES, NEIGHBOURS, EDGE_FEATURES)
    assert graph["neighbours"].shape == (MAX_MATCHES, NEIGHBOURS)
    assert graph["neighbours"].max() < count
    assert set(graph["labels"][:count].tolist()) == {0, 1}
    assert (graph["labels"][count:] == -1).all()


def test_a_graph_with_too_many_matches_is_cut() -> None:
    many = MAX_MATCHES + 100
    stored = {
        "nodes": torch.randn(many, NODE_FEATURES),
        "edges": torch.randn(many, NEIGHBOURS, EDGE_FEATURES),
        "neighbours": torch.full((many, NEIGHBOURS), many - 1),
        "labels": torch.ones(many, dtype=torch.int8),
    }
    graph = _padded(stored)
    assert int(graph["count"]) == MAX_MATCHES
    assert graph["neighbours"].max() < MAX_MATCHES
    assert torch.equal(graph["nodes"], stored["nodes"][:MAX_MATCHES])


def field(count: int = 800) -> tuple[Candidates, np.ndarray]:
    """Matches under one similarity with a tenth that are known wrong and a tenth that are unknown."""
    rng = np.random.default_rng(0)
    x0 = rng.uniform(0, 400, (count, 2))
    x1 = x0 @ np.array([[0.9, 0.1], [-0.1, 0.9]]) + 20.0
    labels = np.ones(count, np.int8)
    labels[::10], labels[5::10] = 0, -1
    ones = np.ones(count)
    linear = np.tile(np.eye(2), (count, 1, 1))
    found = Candidates(x0, x1, linear, ones, ones, ones, np.ones((count, 3)), ones, np.zeros(count, np.bool_))
    return found, labels


def test_matches_led_astray_keep_their_patches_and_lose_their_place() -> None:
    found, labels = field()
    led, judged = perturb_matches(found, labels, 0.2, np.random.default_rng(4))
    moved = np.linalg.norm(led.query_xy - found.query_xy, axis=1)
    assert 20 < (moved > 0).sum() < 0.45 * 640
    assert (labels[moved > 0] == 1).all(), "only right matches are moved"
    assert (judged[moved > 6] == 0).all()
    assert (judged[(moved > 0) & (moved <= 6)] == -1).all()
    np.testing.assert_array_equal(judged[moved == 0], labels[moved == 0])
    for name in ("reference_xy", "similarity", "correlation", "information", "moved", "grown"):
        np.testing.assert_array_equal(getattr(led, name), getattr(found, name))
    assert (led.margin[moved > 6] < 1).all()
    np.testing.assert_array_equal(led.margin[moved == 0], 1)
    # some go alone, some in groups that move alike
    _, counts = np.unique(np.round((led.query_xy - found.query_xy)[moved > 0], 6), axis=0, return_counts=True)
    assert counts.min() == 1
    assert counts.max() > 1
    # what was given is not changed
    np.testing.assert_array_equal(labels, field()[1])
    np.testing.assert_array_equal(found.query_xy, field()[0].query_xy)


def test_how_many_are_led_astray_varies_about_the_share_and_a_few_matches_are_left_alone() -> None:
    found, labels = field()
    rng = np.random.default_rng(1)
    shares = [
        (perturb_matches(found, labels, 0.1, rng)[0].query_xy != found.query_xy).any(1).sum() / 640 for _ in range(200)
    ]
    assert 0.08 < np.mean(shares) < 0.12
    assert min(shares) < 0.02
    assert max(shares) > 0.25
    few, known = field(30)
    assert perturb_matches(few, known, 0.4, rng)[0] is few


def test_a_pair_comes_round_with_other_matches_led_astray(data: Path, tmp_path: Path) -> None:
    graphs = dataset(data, tmp_path, astray=0.2)
    first, again = graphs[0], graphs[2]  # two pairs: sample 2 is pair 0
    assert int(first["count"]) == int(again["count"])
    assert not torch.equal(first["labels"], again["labels"])
    assert same(graphs[0], first)


def test_photos_judge_by_their_homography(data: Path) -> None:
    source = HomographyPairs(data / "train_photos")
    pair = source.draw(np.random.default_rng(4), 192)
    judged = JudgedPhotos(source, 192).draw(np.random.default_rng(4))
    np.testing.assert_array_equal(judged.image0, pair.image0)
    points0, points1 = pair.points0.astype(np.float64), pair.points1.astype(np.float64)
    assert (judged.judge(points0, points1) == 1).all()
    assert (judged.judge(points0, points1 + np.array([1.0, 0.5])) == 1).all()
    assert (judged.judge(points0, points1 + np.array([0.0, 2.0])) == 0).all()


class OneViewPair:
    """A wall 2 m away, of which the second view, 0.2 m to the right, sees a post 1 m in front; no depth at the top."""

    name = "scenes"

    def draw_views(self, rng: np.random.Generator) -> ViewPair:
        depth0, depth1 = np.full((150, 200), 2.0, np.float32), np.full((150, 200), 2.0, np.float32)
        depth0[:20] = np.inf
        depth1[:, 90:110] = 1.0
        image = np.zeros((150, 200, 3), np.uint8)
        motion = np.eye(4)
        motion[0, 3] = -0.2
        return ViewPair(image, image, depth0, depth1, K, K, motion)


def test_scenes_judge_by_depth_and_visibility() -> None:
    judge = JudgedViews(OneViewPair()).draw(np.random.default_rng(0)).judge  # type: ignore[arg-type]
    shift = np.array([-20.0, 0.0])  # f * baseline / depth
    wall, hidden, unknown = np.array([[60.0, 80.0]]), np.array([[120.0, 80.0]]), np.array([[60.0, 5.0]])
    assert judge(wall, wall + shift).tolist() == [1]
    assert judge(wall, wall + shift + 0.7).tolist() == [1]
    assert judge(wall, wall + shift + 3.0).tolist() == [0]
    assert judge(hidden, hidden + shift).tolist() == [-1], "the place is right, but hidden: not to be told"
    assert judge(hidden, hidden + shift + 30.0).tolist() == [0]
    assert judge(unknown, unknown + shift).tolist() == [-1]


def test_photo_sets_judge_by_epipolar_distance(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    columns = "image,fx,fy,cx,cy,qx,qy,qz,qw,tx,ty,tz"
    rows = [f"{k}.png,200,200,99.5,74.5,0,0,0,1,{tx},0,0" for k, tx in enumerate((0, -0.5))]
    (folder / "cameras.csv").write_text("\n".join([columns, *rows]))
    paths = [folder / "images" / f"{k}.png" for k in range(2)]
    for path in paths:
        cv2.imwrite(str(path), np.zeros((150, 200, 3), np.uint8))
    source = SimpleNamespace(draw_images=lambda rng: tuple(paths))
    judge = JudgedPhotoSets(source, ImageStore()).draw(np.random.default_rng(0)).judge  # type: ignore[arg-type]
    here = np.array([[80.0, 60.0]])
    # a camera that moves along x: a place keeps its row, its column is unknown
    for column in (-30.0, 0.0, 55.0):
        assert judge(here, here + np.array([column, 0.0])).tolist() == [1]
    assert judge(here, here + np.array([5.0, 1.5])).tolist() == [-1]
    assert judge(here, here + np.array([5.0, -4.0])).tolist() == [0]


def test_a_source_that_cannot_judge_is_refused(tmp_path: Path) -> None:
    module = MatchFilterModule(MatchFilterConfig(initial_weights=path_of("gcm")))
    file = tmp_path / "pairs.csv"
    file.write_text("image0,image1\na.jpg,b.jpg\n")
    with pytest.raises(ValueError, match="'pairs_csv' cannot judge matches: use photos, multiview, or views"):
        module.make_dataset([(CsvPairs(file), 1.0)], tmp_path, PhotometricConfig())


def test_the_stage_needs_a_network(data: Path, tmp_path: Path) -> None:
    module = MatchFilterModule(MatchFilterConfig())
    with pytest.raises(ValueError, match="needs the descriptor stage before it"):
        module.make_dataset([(HomographyPairs(data / "train_photos"), 1.0)], tmp_path, PhotometricConfig())


def test_pairs_without_any_match_end_with_the_cause(tmp_path: Path) -> None:
    class Blank:
        def draw(self, rng: np.random.Generator) -> SimpleNamespace:
            image = np.full((32, 32, 3), 90, np.uint8)
            return SimpleNamespace(image0=image, image1=image, judge=None)

    matcher = GcmMatcher(device="cpu", weights="random")
    still = PhotometricConfig(strength=0.0)
    graphs = GraphDataset(matcher, [(Blank(), 1.0)], 1, tmp_path, seed=0, photometric=still, network="none")  # type: ignore[list-item]
    with pytest.raises(ValueError, match="twenty training pairs in a row gave no candidate"):
        graphs[0]


def batch(seed: int, count: int = 200) -> dict[str, Tensor]:
    """Graphs in which a match is right where its correlation is high and its residual low."""
    generator = torch.Generator().manual_seed(seed)
    nodes = torch.randn(2, count, NODE_FEATURES, generator=generator)
    labels = (nodes[..., 2] - nodes[..., 7] > 0).to(torch.int8)
    labels[:, ::10] = -1
    return {
        "nodes": nodes,
        "neighbours": torch.randint(0, count // 2, (2, count, NEIGHBOURS), generator=generator),
        "edges": torch.randn(2, count, NEIGHBOURS, EDGE_FEATURES, generator=generator),
        "labels": labels,
        "count": torch.tensor([count, count // 2]),
    }


def test_the_filter_learns_what_tells_right_from_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = MatchFilterModule(MatchFilterConfig(max_steps=80))
    seen: list[dict] = []
    monkeypatch.setattr(module, "log_dict", lambda values, **_: seen.append(values))
    settings = module.configure_optimizers()
    optimizer, schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    for step in range(80):
        optimizer.zero_grad()
        module.training_step(batch(step), step).backward()
        optimizer.step()
        schedule.step()
    module.training_step(batch(999), 80)
    assert seen[-1]["train/accuracy"] > 0.9 > seen[0]["train/accuracy"]
    assert seen[-1]["train/loss"] < 0.4 < seen[0]["train/loss"]


def test_what_cannot_be_told_does_not_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    module = MatchFilterModule(MatchFilterConfig())
    monkeypatch.setattr(module, "log_dict", lambda values, **_: None)
    unknown = batch(0)
    unknown["labels"][:] = -1
    loss = module.training_step(unknown, 0)
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in module.filter.parameters())


def test_a_whole_run_gives_weights_that_load_with_the_network_untouched(data: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "filter",
            "matcher": "gcm",
            "data": {"size": 64, "sources": [{"kind": "photos", "weight": 1}]},
            "stages": [
                {
                    "stage": "match_filter",
                    "max_steps": 3,
                    "batch_pairs": 2,
                    "settings": {"graphs": 2, "initial_weights": str(path_of("gcm"))},
                }
            ],
        }
    )
    outcome = train(recipe, tmp_path / "out", data)
    assert outcome.finished
    trained, shipped = load_file(tmp_path / "out" / "last.safetensors"), load_file(path_of("gcm"))
    network = {k for k in shipped if not k.startswith("filter.")}
    assert all(torch.equal(trained[k], shipped[k]) for k in network)
    assert trained.keys() - network
    assert all(k.startswith("filter.") for k in trained.keys() - network)
    # the scale of the features was taken from the graphs
    assert not torch.equal(trained["filter.mean"], torch.zeros(NODE_FEATURES))
    assert (trained["filter.deviation"] > 0).all()
    matcher = GcmMatcher(device="cpu", weights=str(tmp_path / "out" / "last.safetensors"))
    image = cv2.imread(str(data / "train_photos" / "0.png"))
    encoding = matcher.encode(np.asarray(image, np.uint8))
    assert len(matcher.match(encoding, encoding)) > 0


def test_a_filter_trained_before_is_not_part_of_the_network(tmp_path: Path) -> None:
    state = {"smooth4.0.weight": torch.ones(2), "filter.mean": torch.ones(NODE_FEATURES)}
    path = tmp_path / "before.safetensors"
    save_file(state, str(path))
    exported = MatchFilterModule(MatchFilterConfig(initial_weights=path)).export_state()
    assert torch.equal(exported["smooth4.0.weight"], torch.ones(2))
    assert torch.equal(exported["filter.mean"], torch.zeros(NODE_FEATURES))


def test_a_filter_can_be_trained_further(data: Path, tmp_path: Path) -> None:
    config = MatchFilterConfig(initial_weights=path_of("gcm"), continue_filter=True, graphs=1)
    module = MatchFilterModule(config)
    module.make_dataset([(HomographyPairs(data / "train_photos"), 1.0)], tmp_path, PhotometricConfig(strength=0.3))
    shipped = load_file(path_of("gcm"))
    exported = module.export_state()
    assert exported.keys() == shipped.keys()
    assert all(torch.equal(exported[k], shipped[k]) for k in shipped), "its scale of the features included"
    bare = tmp_path / "bare.safetensors"
    save_file({k: v for k, v in shipped.items() if not k.startswith("filter.")}, str(bare))
    with pytest.raises(ValueError, match="continue_filter: the initial weights hold no match filter"):
        MatchFilterModule(config.model_copy(update={"initial_weights": bare}))
