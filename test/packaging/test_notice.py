"""NOTICE gives the credit that the training material's licences ask for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def notice(repository: Path) -> str:
    return flat((repository / "NOTICE").read_text())


@pytest.mark.parametrize("ancestor", ["EfficientNet-Lite0", "EdgePoint2", "ImageNet", "MegaDepth"])
def test_the_ancestors_of_the_weights_are_named(notice: str, ancestor: str) -> None:
    assert ancestor in notice


def test_every_photo_source_is_named(notice: str, shared_data: Path) -> None:
    table = (shared_data.need("train_photos/README.md")).read_text()  # type: ignore[attr-defined]
    sources = re.findall(r"^\| \w+ \| \d+ \| (\S+) \|", table, re.MULTILINE)
    assert len(sources) > 30
    assert not [source for source in sources if source not in notice]


@pytest.mark.parametrize("folder", ["train_multiview", "train_scenes"])
def test_every_credit_line_is_there(notice: str, shared_data: Path, folder: str) -> None:
    text = shared_data.need(f"{folder}/README.md").read_text()  # type: ignore[attr-defined]
    section = re.search(r"^##[^\n]*ttribution.*?(?=^Licence )", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    items = [flat(item) for item in re.findall(r"^- (.*?)(?=^- |^$)", section[0], re.MULTILINE | re.DOTALL)]
    # without the addresses and file names in brackets
    credits = [re.sub(r" ?\((creativecommons|`)[^)]*\)", "", item).strip(" .") for item in items if "CC BY" in item]
    assert len(credits) >= 6
    assert not [credit for credit in credits if credit not in notice]
