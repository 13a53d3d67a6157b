"""The contract of the matchers: types, limits, determinism and clear errors.

`any_matcher` is every matcher of the registry with random weights; `matcher` are those that need no fetched weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from ros2_densematch.arrays import Image
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Matcher
from ros2_densematch.matchers.registry import list_matchers, load_matcher
from ros2_densematch.messages.image import decode_image
from ros2_densematch.weights.official import OFFICIAL

Photo = Callable[..., Image]
SIZES = [((203, 151), (160, 120)), ((160, 121), (160, 121)), ((97, 240), (240, 97))]


def check(matches: Correspondences, reference: Image, query: Image, most: int | None) -> None:
    """What must hold for any result."""
    count = len(matches)
    assert most is None or count <= most
    assert matches.reference_size == (reference.shape[1], reference.shape[0])
    assert matches.query_size == (query.shape[1], query.shape[0])
    assert type(matches.overlap) is float
    assert 0.0 <= matches.overlap <= 1.0
    for xy, (width, height) in (
        (matches.reference_xy, matches.reference_size),
        (matches.query_xy, matches.query_size),
    ):
        assert xy.shape == (count, 2)
        assert xy.dtype == np.float32
        assert np.isfinite(xy).all()
        assert (xy >= -0.5).all()
        assert (xy <= np.array([width, height]) - 0.5).all()
    assert matches.score.dtype == np.float32
    assert ((matches.score >= 0) & (matches.score <= 1)).all()
    assert (np.diff(matches.score) <= 0).all(), "the best match comes first"
    if matches.precision is not None:
        assert matches.precision.shape == (count, 3)
        assert matches.precision.dtype == np.float32
        xx, xy, yy = matches.precision.T.astype(np.float64)
        assert np.isfinite(matches.precision).all()
        assert (xx > 0).all()
        assert (xx * yy - xy * xy > 0).all(), "an inverse covariance is positive definite"
    if matches.warp is not None:
        assert matches.warp.xy.shape[2:] == (2,)
        assert matches.warp.xy.shape[:2] == matches.warp.certainty.shape
        assert matches.warp.xy.dtype == matches.warp.certainty.dtype == np.float32
        assert np.isfinite(matches.warp.xy).all()
        assert ((matches.warp.certainty >= 0) & (matches.warp.certainty <= 1)).all()


def equal(first: Correspondences, second: Correspondences) -> bool:
    same = all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("reference_xy", "query_xy", "score", "precision", "overlap")
    )
    if first.warp is None or second.warp is None:
        return same and first.warp is second.warp
    return (
        same
        and np.array_equal(first.warp.xy, second.warp.xy)
        and np.array_equal(first.warp.certainty, second.warp.certainty)
    )


def test_the_registry_lists_what_it_can_load() -> None:
    assert list_matchers() == sorted(list_matchers())
    assert {"gcm", "sift"} <= set(list_matchers())


def test_every_matcher_takes_odd_unequal_and_grey_images(any_matcher: Matcher, photo: Photo) -> None:
    reference, query = photo(0, 97, 80), np.ascontiguousarray(photo(1, 64, 121)[..., 1])
    first, second = any_matcher.encode(reference, reference=True), any_matcher.encode(query)
    matches = any_matcher.match(first, second, max_matches=300)
    check(matches, reference, query, 300)
    other_way = any_matcher.match(second, first, max_matches=300)
    check(other_way, query, reference, 300)
    assert any_matcher.name in ("gcm", "sift") or len(matches) + len(other_way) > 0
    # the same call gives the same result, whether the encoding is a keyframe's, an old or a new one
    assert equal(any_matcher.match(first, second, max_matches=300), matches)
    assert equal(any_matcher.match(any_matcher.encode(reference), second, max_matches=300), matches)


def test_every_matcher_holds_to_a_mask(any_matcher: Matcher, photo: Photo) -> None:
    image = photo(0, 97, 80)
    mask = np.zeros((80, 97), np.bool_)
    mask[5:70, 40:90] = True
    masked = any_matcher.encode(image, reference=True, mask=mask)
    matches = any_matcher.match(masked, masked, max_matches=300)
    check(matches, image, image, 300)
    for xy in (matches.reference_xy, matches.query_xy):
        x, y = np.floor(xy + 0.5).astype(int).T
        assert mask[y, x].all()
    hidden = any_matcher.encode(image, mask=np.zeros((80, 97), np.bool_))
    nothing = any_matcher.match(hidden, masked)
    assert len(nothing) == 0
    assert nothing.overlap == 0.0


def test_every_matcher_takes_what_the_decoder_makes(any_matcher: Matcher, photo: Photo) -> None:
    image = photo(0, 97, 80)
    with_alpha = np.dstack([image, np.full((80, 97), 7, np.uint8)])
    deep = image[..., 1].astype(np.uint16) * 16 + 1000
    decoded = []
    for raw, encoding in ((with_alpha, "rgba8"), (deep, "mono16")):
        with pytest.raises(ValueError, match=r"^image must be"):
            any_matcher.encode(raw)
        message = SimpleNamespace(
            height=80, width=97, encoding=encoding, is_bigendian=0, step=raw.strides[0], data=raw.tobytes()
        )
        decoded.append(decode_image(message))
    matches = any_matcher.match(*(any_matcher.encode(picture) for picture in decoded), max_matches=50)
    check(matches, *decoded, 50)


@pytest.mark.parametrize(("first", "second"), SIZES)
@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_any_two_images_give_a_valid_result(
    matcher: Matcher, photo: Photo, first: tuple[int, int], second: tuple[int, int], colour: str
) -> None:
    reference, query = photo(0, *first), photo(1, *second)
    if colour == "grey":
        reference = np.asarray(cv2.cvtColor(reference, cv2.COLOR_RGB2GRAY), np.uint8)
    check(matcher.match(matcher.encode(reference, reference=True), matcher.encode(query)), reference, query, 5000)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (200, 16)])
def test_the_smallest_images_give_a_valid_result(matcher: Matcher, photo: Photo, size: tuple[int, int]) -> None:
    image, other = photo(0, *size), photo(1, 160, 120)
    for reference, query in ((image, image), (image, other), (other, image)):
        check(matcher.match(matcher.encode(reference), matcher.encode(query)), reference, query, 5000)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_colour_gives_no_match(matcher: Matcher, photo: Photo, value: int) -> None:
    blank, image = np.full((120, 160, 3), value, np.uint8), photo(0, 160, 120)
    for reference, query in ((blank, blank), (blank, image), (image, blank)):
        matches = matcher.match(matcher.encode(reference), matcher.encode(query))
        check(matches, reference, query, 5000)
        assert len(matches) == 0
        assert matches.overlap < 0.05


def test_an_image_matches_itself_in_place(matcher: Matcher, photo: Photo) -> None:
    image = photo(0, 203, 151)
    encoding = matcher.encode(image)
    matches = matcher.match(encoding, encoding)
    check(matches, image, image, 5000)
    assert len(matches) > 20
    assert np.median(np.linalg.norm(matches.query_xy - matches.reference_xy, axis=1)) < 0.05


def test_the_same_call_gives_the_same_result(matcher: Matcher, photo: Photo) -> None:
    images = photo(0, 203, 151), photo(0, 203, 151)[::-1].copy()
    runs = []
    for _ in range(2):
        reference, query = (matcher.encode(image) for image in images)
        runs += [matcher.match(reference, query), matcher.match(reference, query)]
    assert all(equal(runs[0], other) for other in runs[1:])


def test_loading_and_matching_leave_the_global_random_numbers_alone(matcher: Matcher, photo: Photo) -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fresh = load_matcher(matcher.name, device="cpu", weights="random")
    encoding = fresh.encode(photo(0, 160, 120))
    fresh.match(encoding, encoding)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("most", [0, 1, 7, None])
def test_max_matches_keeps_the_best(matcher: Matcher, photo: Photo, most: int | None) -> None:
    image = photo(0, 203, 151)
    encoding = matcher.encode(image)
    everything = matcher.match(encoding, encoding, max_matches=None)
    some = matcher.match(encoding, encoding, max_matches=most)
    check(some, image, image, most)
    assert len(some) == (len(everything) if most is None else most)
    np.testing.assert_array_equal(some.score, everything.score[: len(some)])
    assert some.overlap == everything.overlap


def test_the_caller_may_reuse_the_memory_of_an_image(matcher: Matcher, photo: Photo) -> None:
    image, mask = photo(0, 203, 151).copy(), np.ones((151, 203), np.bool_)
    other = matcher.encode(np.ascontiguousarray(np.rot90(photo(0, 203, 151))))
    expected = matcher.match(matcher.encode(image, mask=mask), other)
    encoding = matcher.encode(image, mask=mask)
    image[:], mask[:] = 0, False
    assert equal(matcher.match(encoding, other), expected)


@pytest.mark.filterwarnings("error")
def test_read_only_images_are_taken_without_a_warning(matcher: Matcher, photo: Photo) -> None:
    image = photo(0, 160, 120)
    assert not image.flags.writeable
    matcher.encode(image)


def test_views_of_memory_in_any_order_are_read_right(matcher: Matcher, photo: Photo) -> None:
    image = photo(0, 203, 151)
    bgr_memory = np.ascontiguousarray(image[..., ::-1])
    wide = np.zeros((151, 400, 3), np.uint8)
    wide[:, 50:253] = image
    expected = matcher.encode(image)
    for view in (bgr_memory[..., ::-1], wide[:, 50:253], np.asfortranarray(image)):
        assert equal(matcher.match(expected, matcher.encode(view)), matcher.match(expected, expected))


def test_a_mask_leaves_no_match_in_masked_pixels(matcher: Matcher, photo: Photo) -> None:
    image = photo(0, 240, 180)
    rng = np.random.default_rng(0)
    blobs = [np.asarray(cv2.resize(rng.random((6, 8)), (240, 180)) > 0.45, np.bool_) for _ in range(2)]
    matches = matcher.match(matcher.encode(image, mask=blobs[0]), matcher.encode(image, mask=blobs[1]))
    assert len(matches) > 10
    for xy, mask in ((matches.reference_xy, blobs[0]), (matches.query_xy, blobs[1])):
        x, y = np.floor(xy + 0.5).astype(int).T
        assert mask[y, x].all()


def test_a_mask_of_nothing_leaves_nothing(matcher: Matcher, photo: Photo) -> None:
    image = photo(0, 160, 120)
    hidden = matcher.encode(image, mask=np.zeros((120, 160), np.bool_))
    seen = matcher.encode(image, mask=np.ones((120, 160), np.bool_))
    for reference, query in ((hidden, seen), (seen, hidden), (hidden, hidden)):
        matches = matcher.match(reference, query)
        assert len(matches) == 0
        assert matches.overlap == 0.0


def test_a_mask_of_everything_changes_nothing(matcher: Matcher, photo: Photo) -> None:
    image = photo(0, 203, 151)
    open_, plain = matcher.encode(image, mask=np.ones((151, 203), np.bool_)), matcher.encode(image)
    assert equal(matcher.match(open_, open_), matcher.match(plain, plain))


def test_a_panorama_8000_pixels_wide_keeps_its_own_pixels(matcher: Matcher, photo: Photo) -> None:
    tile = photo(0, 500, 240)
    image = np.asarray(cv2.resize(np.tile(tile, (1, 8, 1)), (8000, 480)), np.uint8)
    # brightness differs from tile to tile, so that they are told apart
    image = (image * np.linspace(0.4, 1.0, 8000)[:, None]).astype(np.uint8)
    mask = np.ones(image.shape[:2], np.bool_)
    mask[:, 3000:4000] = False
    encoding = matcher.encode(image, mask=mask)
    # all of them: with random weights, scores say nothing about which part of the image the best lie in
    matches = matcher.match(encoding, encoding, max_matches=None)
    check(matches, image, image, len(matches))
    assert matches.reference_xy[:, 0].min() < 500
    assert matches.reference_xy[:, 0].max() > 7500
    column = np.floor(matches.reference_xy[:, 0] + 0.5)
    assert not ((column >= 3000) & (column < 4000)).any()
    assert np.median(np.linalg.norm(matches.query_xy - matches.reference_xy, axis=1)) < 0.5


WRONG_IMAGES: dict[str, tuple[Any, str]] = {
    "float": (np.zeros((64, 64, 3), np.float32), "uint8.*float32"),
    "16 bit": (np.zeros((64, 64), np.uint16), "uint8.*uint16"),
    "RGBA": (np.zeros((64, 64, 4), np.uint8), r"RGB.*\(64, 64, 4\).*alpha"),
    "one channel": (np.zeros((64, 64, 1), np.uint8), r"RGB.*\(64, 64, 1\)"),
    "batch": (np.zeros((2, 64, 64, 3), np.uint8), r"RGB.*\(2, 64, 64, 3\)"),
    "tiny": (np.zeros((8, 8, 3), np.uint8), "16 x 16.*8 x 8"),
    "empty": (np.zeros((0, 0), np.uint8), "16 x 16.*0 x 0"),
    "list": ([[0] * 64] * 64, "NumPy array.*list"),
}


@pytest.mark.parametrize("kind", WRONG_IMAGES)
def test_a_wrong_image_is_refused_in_one_sentence(any_matcher: Matcher, kind: str) -> None:
    image, pattern = WRONG_IMAGES[kind]
    with pytest.raises(ValueError, match=r"^image must be") as caught:
        any_matcher.encode(image)
    assert re.search(pattern, str(caught.value))
    assert "\n" not in str(caught.value)


WRONG_MASKS: dict[str, Any] = {
    "bytes": np.ones((120, 160), np.uint8),
    "transposed": np.ones((160, 120), np.bool_),
    "three channels": np.ones((120, 160, 3), np.bool_),
    "list": [[True] * 160] * 120,
}


@pytest.mark.parametrize("kind", WRONG_MASKS)
def test_a_wrong_mask_is_refused_in_one_sentence(any_matcher: Matcher, photo: Photo, kind: str) -> None:
    with pytest.raises(ValueError, match=r"^mask must be bool of the image's shape \(120, 160\)") as caught:
        any_matcher.encode(photo(0, 160, 120), mask=WRONG_MASKS[kind])
    assert "\n" not in str(caught.value)


def test_an_encoding_of_another_matcher_is_refused(any_matcher: Matcher, photo: Photo) -> None:
    own = any_matcher.encode(photo(0, 160, 120))
    foreign = Encoding("surf", own.size, None)
    for role, pair in (("reference", (foreign, own)), ("query", (own, foreign))):
        with pytest.raises(ValueError, match=f"the {role} was encoded by matcher 'surf', this is '{any_matcher.name}'"):
            any_matcher.match(*pair)


def test_a_negative_number_of_matches_is_refused(any_matcher: Matcher, photo: Photo) -> None:
    encoding = any_matcher.encode(photo(0, 160, 120))
    with pytest.raises(ValueError, match="max_matches must be None or at least 0, got -1"):
        any_matcher.match(encoding, encoding, max_matches=-1)


@pytest.mark.parametrize("name", list_matchers())
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown matcher 'surf': choose one of .*gcm.*sift"):
        load_matcher("surf")
    with pytest.raises(ValueError, match=r"unknown preset 'huge' of \w+: choose .*base"):
        load_matcher(name, preset="huge", weights="random")
    with pytest.raises(ValueError, match=f"'tpu'|{name} runs on the CPU"):
        load_matcher(name, device="tpu", weights="random")


@pytest.mark.parametrize("name", sorted({entry.matcher for entry in OFFICIAL.values()}))
def test_without_weights_one_error_names_checkpoint_licence_and_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSEMATCH_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        load_matcher(name, device="cpu")
    message = str(caught.value)
    wanted = [entry for entry in OFFICIAL.values() if f"the checkpoint {entry.name} " in message]
    assert wanted, message
    for entry in wanted:
        assert entry.licence in message
        assert f"densematch weights {'fetch' if entry.url else 'import FILE --as'} {entry.name}" in message
    assert "\n" not in message
