"""Every shipped recipe: what it says, whether its loss falls on a fixed batch, its weights; and what stages refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from smoke import LEAST, TINY, Tried, generate, texture, tiny_recipe, try_recipe

from ros2_densematch.cli.main import main
from ros2_densematch.matchers.registry import list_matchers, load_matcher
from ros2_densematch.nn.transformations import identity, transform_points
from ros2_densematch.training.data.synthetic_warps import SyntheticWarps, random_theta
from ros2_densematch.training.recipe import StageRecipe, load_recipe
from ros2_densematch.training.run.files import write_weights
from ros2_densematch.training.run.trainer import train
from ros2_densematch.training.stages.base import exported_state
from ros2_densematch.training.stages.initial_weights import initial_state
from ros2_densematch.training.stages.registry import build_stage, stage_config

RECIPES = sorted((Path(__file__).parents[2] / "config" / "training").glob("*.yaml"))
# ten seconds of a free core and more, each
SLOW = {"roma", "roma_v2", "dkm", "weakalign"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "data"
    generate(folder)
    return folder


def test_every_recipe_is_tried():
    assert {path.stem for path in RECIPES} == set(TINY)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_paper_data_schedule_and_expected_curve(path):
    head = path.read_text(encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.matcher in list_matchers()
    for stage in recipe.stages:
        stage_config(stage, path.parent)
    if recipe.name != "gcm-small":  # told at length in docs/training.md
        for said in (
            "Paper",
            "Data:",
            "Schedule:",
            "Expected curve:",
            "densematch train" if "torchrun" not in head else "torchrun",
        ):
            assert said in head, f"{path.name} does not say: {said}"


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in SLOW else []) for p in RECIPES]
)
def test_the_loss_of_one_fixed_batch_falls_by_a_fifth_within_twenty_steps(path, data, tmp_path):
    for tried in try_recipe(path, data, tmp_path / "out"):
        assert tried.fell, f"{tried.stage}: {tried.losses}"


def test_a_loss_that_stays_is_told_from_one_that_falls():
    assert Tried("x", [5.0, 3.9], 0).fell
    assert not Tried("x", [5.0, 4.1], 0).fell
    assert Tried("x", [-0.5, -0.61], 0).fell
    assert not Tried("x", [-0.001, -0.001 - LEAST / 2], 0).fell


def stage(name: str, **settings) -> StageRecipe:
    return StageRecipe(stage=name, max_steps=10, settings=settings)


def test_fine_tuning_starts_from_the_shipped_weights_and_keeps_the_match_filter(data):
    recipe = load_recipe(next(p for p in RECIPES if p.stem == "finetune"))
    module = build_stage(recipe.stages[0], data)
    shipped, exported = initial_state(Path("gcm")), exported_state(module)
    assert exported.keys() == shipped.keys()
    assert all(torch.equal(exported[k], shipped[k]) for k in shipped)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("descriptor", {}, "needs one teacher"),
        ("descriptor", {"teacher_weights": "gcm", "initial_weights": "nothing"}, "no initial weights nothing: give"),
        ("condl", {"initial_weights": "gcm"}, "does not fit CondlNetwork"),
        ("patch_distillation", {}, "needs teacher_folder"),
        ("weak_consensus", {"network": "ncnet", "encoder_weights": "no.pth"}, r"no\.pth"),
        ("dense_matching", {"network": "dkm", "encoder_weights": "random", "gamma": 0}, "gamma: input should be"),
    ],
)
def test_a_fault_in_a_stages_settings_is_told_before_training(name, settings, message, data):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build_stage(stage(name, **settings), data)


def test_weak_consensus_needs_counterexamples(data):
    module = build_stage(stage("weak_consensus", network="ncnet", encoder_weights="random"), data)
    images = torch.rand(2, 3, 64, 64)
    batch = {"image0": images, "image1": images, "group": torch.tensor([3, 3])}
    with pytest.raises(ValueError, match="shows the same thing"):
        module.training_step(batch, 0)


@pytest.mark.parametrize("kind", ["affine", "homography", "tps"])
def test_a_synthetic_target_is_the_source_seen_through_its_transformation(data, kind):
    sample = SyntheticWarps(sorted((data / "photos").iterdir()), [kind], seed=4)[2]
    theta = sample["theta0"][None]
    grid = torch.rand(1, 1, 4000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = transform_points(theta, grid)
    inside = (seen.abs() < 0.97).all(-1)[0, 0]
    values = [
        torch.nn.functional.grid_sample(sample[name][None], place, align_corners=True)[0, :, 0, inside]
        for name, place in (("target0", grid), ("source", seen))
    ]
    assert int(inside.sum()) > 500
    # the two are resampled on different grids: equal but for interpolation
    assert float((values[0] - values[1]).abs().mean()) < 0.02
    assert float((values[0] - values[1].roll(1, 1)).abs().mean()) > 0.08


def test_random_transformations_depend_on_the_generator_alone_and_keep_their_range():
    for kind, count in (("affine", 6), ("homography", 8), ("tps", 18)):
        drawn = [random_theta(kind, np.random.default_rng(k)) for k in (0, 0, 1)]
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
        assert float((drawn[0] - identity(count)).abs().max()) <= 0.65


def test_a_user_trains_condl_on_a_folder_of_photos_and_matches_with_the_weights(data, tmp_path, capsys):
    config = next(p for p in RECIPES if p.stem == "condl")
    command = ["train", str(config), "--data", str(data / "photos"), "--out", str(tmp_path / "x"), "--max-steps", "2"]
    assert main(command) == 0
    weights = tmp_path / "x" / "last.safetensors"
    with safe_open(str(weights), framework="pt") as file:
        assert file.metadata()["matcher"] == "condl"
    images = [str(data / "photos" / name) for name in ("0a.jpg", "0b.jpg")]
    command = ["match", *images, "--weights", str(weights), "--out", str(tmp_path / "m"), "--preset", "turbo"]
    assert main(command) == 0
    found = np.load(tmp_path / "m" / "000000.npz")
    assert len(found["reference_xy"]) == len(found["query_xy"]) > 0
    assert "condl" in (tmp_path / "m" / "summary.json").read_text(encoding="utf-8")


def test_a_stage_with_samples_of_its_own_runs_in_the_trainer(data, tmp_path):
    path = next(p for p in RECIPES if p.stem == "cnngeometric")
    recipe = tiny_recipe(path)
    outcome = train(recipe, tmp_path / "x", data, max_steps=1)
    assert outcome.steps == {"alignment": 1}
    matcher = load_matcher("cnngeometric", device="cpu", weights=str(outcome.weights))
    picture = texture(0, 160, 120)
    m = matcher.match(matcher.encode(picture), matcher.encode(picture))
    assert m.warp is not None


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("condl", {}),
        ("patch_distillation", {"teacher": "r2d2_WASF_N16", "teacher_weights": "random"}),
        ("weak_consensus", {"network": "sparse_ncnet", "encoder_weights": "random"}),
        ("alignment", {"backbone": "resnet101", "transformations": ["affine", "tps"], "encoder_weights": "random"}),
        ("dense_matching", {"network": "dkm", "encoder_weights": "random"}),
    ],
)
def test_any_stage_goes_on_from_the_weights_of_another_run(name, settings, data, tmp_path):
    torch.manual_seed(1)
    before = exported_state(build_stage(stage(name, **settings), data))
    write_weights(tmp_path / "before.safetensors", before, {"matcher": "any"})
    torch.manual_seed(2)
    after = exported_state(
        build_stage(stage(name, **settings, initial_weights=str(tmp_path / "before.safetensors")), data)
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("kept", [True, False])
def test_batch_norms_keep_their_statistics_where_that_is_asked_for(data, kept):
    settings = {"teacher_weights": "gcm", "initial_weights": "gcm", "keeps_statistics": kept}
    module = build_stage(stage("descriptor", **settings), data)
    before = module.network.state_dict()["backbone._bn0.running_mean"].clone()
    module.train()
    module.network(torch.rand(2, 3, 64, 64))
    assert torch.equal(module.network.state_dict()["backbone._bn0.running_mean"], before) == kept
