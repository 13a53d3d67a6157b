"""Rendered scenes: exact depth, pixels that agree between views, and a cache that can be stopped and goes on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_densematch.simulation.view import View
from ros2_densematch.training.data.scenes import ScenePairs
from ros2_densematch.training.images import TrainingDataError
from ros2_densematch.training.scenes.cache import SceneRenderConfig, fill_cache, group_path, render_group
from ros2_densematch.training.scenes.dressing import SceneLibrary, box_model
from ros2_densematch.training.scenes.jobs import render_missing
from ros2_densematch.training.scenes.model import TextureAtlas, load_scene, placed
from ros2_densematch.training.scenes.ray_casting import Lighting, World, depth_of, render
from ros2_densematch.training.scenes.views import camera_pose, warp_pixels

CONFIG = SceneRenderConfig(groups=2, views=3, width=160, height=128)
K = np.array([[120.0, 0, 79.5], [0, 120.0, 63.5], [0, 0, 1]])


def texture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(0, 1, (24, 24, 3)), (192, 192), interpolation=cv2.INTER_CUBIC)
    return (np.clip(coarse, 0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A folder with one scene, written as GLB: a room of 8 x 3 x 7 m with three boxes in it."""
    import trimesh
    from PIL import Image
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    root = tmp_path_factory.mktemp("train_scenes")
    (root / "scenes").mkdir()
    scene = trimesh.Scene()
    parts = [((8, 3, 7), (0, 0, 0)), ((1, 1.2, 1), (2, 0, 1)), ((0.8, 0.8, 1.5), (-2, 0, 2)), ((1, 2, 0.5), (0, 0, -2))]
    for k, (size, place) in enumerate(parts):
        cube = box_model(texture(k))
        uv = cube.uv.reshape(-1, 2) * (2 if k == 0 else 1)
        material = PBRMaterial(baseColorTexture=Image.fromarray(texture(k)), doubleSided=True)
        # trimesh's v runs upwards
        visual = TextureVisuals(uv=np.stack([uv[:, 0], 1 - uv[:, 1]], 1), material=material)
        vertices = cube.triangles.reshape(-1, 3) * size + np.array(place)
        mesh = trimesh.Trimesh(vertices, np.arange(len(vertices)).reshape(-1, 3), visual=visual, process=False)
        scene.add_geometry(mesh, node_name=f"part{k}")
    (root / "scenes" / "room.glb").write_bytes(scene.export(file_type="glb"))
    return root


@pytest.fixture(scope="module")
def cache(scenes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    fill_cache(folder, SceneLibrary(scenes), CONFIG)
    return folder


def test_depth_of_a_wall_is_exact_at_every_pixel():
    wall = World([placed(box_model(texture(0)), 10.0, 0.0, np.array([0.0, -5.0, 8.0]))])  # its front face at z = 3
    view = View(160, 128, K, camera_pose(np.zeros(3), np.array([0.0, 0.0, 1.0]), 0.2))
    np.testing.assert_allclose(depth_of(wall, view), 3.0, atol=1e-4)
    turned = View(160, 128, K, camera_pose(np.zeros(3), np.array([0.3, 0.1, 1.0]), 0.0))
    _, directions = turned.rays()
    np.testing.assert_allclose(depth_of(wall, turned).ravel() * directions[:, 2], 3.0, atol=1e-3)


def test_a_camera_pose_is_a_rotation_with_y_down():
    pose = camera_pose(np.array([1.0, 2, 3]), np.array([1.0, 0, 0]), 0.0)
    np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(pose[:3, 1], [0, -1, 0], atol=1e-12)


def test_a_texture_is_read_bilinearly_and_repeats():
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 1] = 255
    atlas = TextureAtlas([picture])
    number, level = np.ones(4, np.int64), np.zeros(4, np.float32)
    uv = np.array([[0.75, 0.25], [0.5, 0.25], [1.75, -0.75], [0.25, 0.25]], np.float32)
    np.testing.assert_allclose(atlas.sample(number, uv, level)[:, 0], [1, 0.5, 1, 0], atol=1e-6)
    far = atlas.sample(number, uv, np.full(4, 9, np.float32))  # the smallest mip level: the mean
    np.testing.assert_allclose(far, 0.25, atol=0.01)


def test_two_views_of_a_scene_agree_where_they_see_the_same_and_occlusion_is_found(scenes):
    world = World([load_scene(scenes / "scenes" / "room.glb")])
    light = Lighting(np.full(3, 1.0, np.float32), [])
    views = [
        View(160, 128, K, camera_pose(np.array([-1.0, 1.5, -1.0]), np.array([0.2, -0.1, 1.0]), 0.0)),
        View(160, 128, K, camera_pose(np.array([1.2, 1.3, -0.6]), np.array([-0.2, -0.1, 1.0]), 0.1)),
    ]
    depth = [depth_of(world, v) for v in views]
    pictures = [render(world, v, light, 3) for v in views]
    xy, visible = warp_pixels(views[0], depth[0], views[1], depth[1], tolerance=0.01)
    assert 0.2 < visible.mean() < 0.9
    warped = cv2.remap(pictures[1], xy[..., 0].astype(np.float32), xy[..., 1].astype(np.float32), cv2.INTER_LINEAR)
    difference = np.abs(warped - pictures[0]).mean(2)
    assert np.median(difference[visible]) < 0.02
    inside = (xy >= 0).all(2) & (xy[..., 0] <= 159) & (xy[..., 1] <= 127)
    assert np.median(difference[inside & ~visible]) > 3 * np.median(difference[visible])


def test_a_group_is_rendered_the_same_again(scenes, cache):
    again = render_group(SceneLibrary(scenes), CONFIG, 1)
    with np.load(group_path(cache, 1)) as stored:
        assert set(stored) == set(again)
        for key in stored:
            np.testing.assert_array_equal(stored[key], again[key])


def test_only_missing_groups_are_rendered(scenes, cache):
    before = {p: p.stat().st_mtime_ns for p in cache.glob("group_*.npz")}
    assert len(before) == CONFIG.groups
    content = group_path(cache, 0).read_bytes()
    group_path(cache, 0).unlink()
    fill_cache(cache, SceneLibrary(scenes), CONFIG)
    assert group_path(cache, 0).read_bytes() == content
    assert group_path(cache, 1).stat().st_mtime_ns == before[group_path(cache, 1)]
    assert not list(cache.glob("*.tmp"))


def test_other_settings_are_refused_with_their_names(scenes, cache):
    with pytest.raises(ValueError, match=r"other settings .*width"):
        fill_cache(cache, SceneLibrary(scenes), CONFIG.model_copy(update={"width": 192}))


def test_cached_pairs_have_points_that_show_the_same_place(cache):
    source = ScenePairs(cache)
    medians, counts = [], []
    for seed in range(12):
        pair = source.draw(np.random.default_rng(seed), 128)
        again = source.draw(np.random.default_rng(seed), 128)
        np.testing.assert_array_equal(pair.points1, again.points1)
        counts.append(len(pair.points0))
        values = []
        for image, points in ((pair.image0, pair.points0), (pair.image1, pair.points1)):
            assert points.min() >= 0
            assert points.max() <= 127
            x, y = points.T
            values.append(cv2.remap(image.mean(2).astype(np.float32), x[None], y[None], cv2.INTER_LINEAR)[0])
        medians.append(np.corrcoef(*values)[0, 1])
    assert np.median(counts) > 200
    assert np.median(medians) > 0.85


@pytest.mark.slow
def test_rendering_in_two_processes_gives_the_same_files(scenes, cache, tmp_path):
    seen = []
    render_missing(scenes, tmp_path, CONFIG, 2, lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, CONFIG.groups)
    for k in range(CONFIG.groups):
        assert group_path(tmp_path, k).read_bytes() == group_path(cache, k).read_bytes()


def test_a_damaged_group_is_named(cache, tmp_path):
    broken = group_path(tmp_path, 0)
    broken.write_bytes(group_path(cache, 0).read_bytes()[:2000])
    with pytest.raises(TrainingDataError, match=r"group_000000\.npz"):
        ScenePairs(tmp_path).draw(np.random.default_rng(0), 64)


def test_a_damaged_scene_is_named(tmp_path):
    path = tmp_path / "broken.glb"
    path.write_bytes(b"glTF but not really")
    with pytest.raises(TrainingDataError, match=r"broken\.glb"):
        load_scene(path)


def test_every_shared_scene_loads_and_has_a_known_region(shared_data):
    from ros2_densematch.training.scenes.views import REGIONS

    paths = sorted(shared_data.need("train_scenes/scenes").glob("*.glb"))
    assert {p.stem for p in paths} == set(REGIONS)
    model = load_scene(paths[0])
    assert np.isfinite(model.triangles).all()
    assert np.allclose(np.linalg.norm(model.normals, axis=1), 1, atol=1e-4)
