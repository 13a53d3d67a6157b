"""Ready-made scenes."""

from __future__ import annotations

import numpy as np

from ros2_densematch.simulation import textures
from ros2_densematch.simulation.light import Light
from ros2_densematch.simulation.scene import Scene, Surface, box, room


def workshop(seed: int = 0) -> Scene:
    """The demo's scene: a furnished room of 9 m x 7 m x 3 m with one blank wall (the one at the largest y).

    World frame: x along the room, y to the left, z up, metres; the floor is z = 0 and the room spans
    x 0..9 and y -3.5..3.5. Some twenty things stand, lie and hang in it, so that the foreground covers the background.

    Args:
        seed: of all drawings.
    """
    hung = textures.gallery
    walls = room(
        (0.0, -3.5, 0.0),
        (9.0, 3.5, 3.0),
        (
            hung(textures.brick, 9),
            hung(textures.plaster, 8),
            textures.blank,
            hung(textures.tiles, 9),
            textures.plaster,
            textures.boards,
        ),
    )
    things: list[Surface] = []
    brick, crate, leaves, plaster, poster, tiles = (
        textures.brick,
        textures.crate,
        textures.foliage,
        textures.plaster,
        textures.poster,
        textures.tiles,
    )
    for centre, size, yaw, texture in (
        ((3.4, -0.2, 0.35), (0.7, 0.7, 0.7), 0.4, crate),
        ((3.5, -0.25, 0.925), (0.45, 0.45, 0.45), -0.3, poster),
        ((4.3, -2.3, 0.5), (0.9, 0.8, 1.0), -0.2, crate),
        ((4.2, -2.35, 1.3), (0.5, 0.5, 0.6), 0.5, leaves),
        ((5.0, 0.9, 1.5), (0.35, 0.35, 3.0), 0.3, brick),
        ((6.0, -1.2, 1.5), (0.3, 0.3, 3.0), 0.7, tiles),
        ((6.6, 0.3, 0.45), (1.4, 0.6, 0.9), 0.25, poster),
        ((6.5, 0.3, 1.15), (0.5, 0.4, 0.5), -0.4, crate),
        ((7.2, -2.6, 0.9), (0.8, 0.8, 1.8), 0.15, leaves),
        ((7.8, 1.9, 0.6), (0.8, 1.0, 1.2), -0.35, plaster),
        ((7.7, 1.8, 1.45), (0.5, 0.5, 0.5), 0.2, poster),
        ((2.3, -2.9, 0.45), (1.2, 0.7, 0.9), 0.05, tiles),
        ((2.1, -2.9, 1.2), (0.4, 0.4, 0.6), 0.6, crate),
        ((5.4, -3.0, 0.6), (0.7, 0.6, 1.2), -0.1, poster),
        ((4.6, -0.9, 2.55), (0.9, 0.9, 0.35), 0.5, brick),  # hangs from the ceiling
        ((6.9, -0.7, 2.35), (0.5, 1.2, 0.5), -0.2, leaves),
        ((8.2, 0.4, 2.3), (0.4, 0.9, 0.7), 0.3, poster),
        ((8.3, -1.3, 0.7), (0.7, 1.0, 1.4), 0.1, crate),
        ((5.7, -2.0, 0.25), (0.5, 0.5, 0.5), 0.9, plaster),
        ((1.0, -2.6, 0.5), (0.6, 0.8, 1.0), 0.3, leaves),
    ):
        things += box(centre, size, texture, yaw=yaw, density=240.0)
    return Scene(walls + things, light=Light(np.array([4.5, -0.5, 2.8])), seed=seed)


def corridor(seed: int = 0) -> Scene:
    """A corridor along x with two doors, at x = 2 and x = 8, that are the same to the last stroke, as is the wall about
    them; between them hang posters.

    World frame as in `workshop`; the wall with the doors is the one at y = 2, seen by a camera that looks along y.

    Args:
        seed: of all drawings.
    """

    def same(texture: textures.Texture) -> textures.Texture:
        return lambda height, width, density, _: texture(height, width, density, np.random.default_rng(seed))

    def on_wall(low: float, high: float, bottom: float, top: float, y: float, texture: textures.Texture) -> Surface:
        width, height = np.array([high - low, 0.0, 0.0]), np.array([0.0, 0.0, bottom - top])
        return Surface(np.array([low, y, top]), width, height, texture)

    surfaces = []
    for door in (2.0, 8.0):
        surfaces.append(on_wall(door - 2.0, door + 2.0, 0.0, 2.8, 2.0, same(textures.gallery(textures.brick, 6))))
        surfaces.append(on_wall(door - 0.5, door + 0.5, 0.0, 2.1, 1.9, same(textures.crate)))
    surfaces.append(on_wall(4.0, 6.0, 0.0, 2.8, 2.0, textures.gallery(textures.tiles, 6)))
    return Scene(surfaces, light=Light(np.array([5.0, -1.0, 2.6])), seed=seed)


def tabletop(seed: int = 0) -> Scene:
    """A small scene for quick tests: a poster wall 3 m ahead, a floor and two boxes in front of the wall.

    World frame as in `workshop`; a camera near (0, 0, 1) that looks along x sees all of it.

    Args:
        seed: of all drawings.
    """
    wall = Surface(
        np.array([3.0, 2.4, 2.8]), np.array([0, -4.8, 0.0]), np.array([0, 0, -2.8]), textures.gallery(textures.brick, 7)
    )
    floor = Surface(np.array([3.0, 2.4, 0]), np.array([0, -4.8, 0.0]), np.array([-4.0, 0, 0]), textures.boards)
    things = box((2.2, 0.45, 0.45), (0.5, 0.5, 0.9), textures.crate, yaw=0.5, density=260.0)
    things += box((1.9, -0.55, 0.3), (0.4, 0.5, 0.6), textures.poster, yaw=-0.3, density=260.0)
    return Scene([wall, floor, *things], light=Light(np.array([1.0, 0.5, 2.6])), seed=seed)
