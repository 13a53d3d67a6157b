"""Fills a cache of rendered scenes, in several processes where asked for. Imports little: each process pays for it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2

from ros2_densematch.training.scenes.cache import SceneRenderConfig, fill_cache, group_path
from ros2_densematch.training.scenes.dressing import SceneLibrary


def render_missing(
    scenes: Path, cache: Path, config: SceneRenderConfig, processes: int, on_group: Callable[[int, int], None]
) -> None:
    """Renders the groups that a cache lacks.

    Args:
        scenes: folder with scenes/, objects/ and textures/.
        cache: folder of the rendered groups.
        config: what to render.
        processes: how many work at it.
        on_group: called with (groups there, groups in all), about once a second at most where processes share the work.

    Raises:
        ValueError: the cache was made with other settings, or a scene is damaged.
    """
    complete = all(group_path(cache, k).exists() for k in range(config.groups))
    if complete:
        fill_cache(cache, SceneLibrary(scenes), config)  # renders nothing, checks the settings
        return
    if processes == 1:
        fill_cache(cache, SceneLibrary(scenes), config, on_group=on_group)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_render_share, scenes, cache, config, (k, processes)) for k in range(processes)]
        while not all(job.done() for job in jobs):
            on_group(sum(group_path(cache, k).exists() for k in range(config.groups)), config.groups)
            time.sleep(1)
        for job in jobs:
            job.result()


def _render_share(scenes: Path, cache: Path, config: SceneRenderConfig, share: tuple[int, int]) -> None:
    cv2.setNumThreads(1)
    fill_cache(cache, SceneLibrary(scenes), config, share=share)
