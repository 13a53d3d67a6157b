"""Which keys, shapes and types an official checkpoint holds: `key_tables.json`, read and written.

A table maps every key of a state dictionary to its shape and kind. In the file the keys are cut at their dots into a
tree, and subtrees that occur more than once (the blocks of a ResNet, the layers of a transformer) stand once under
"shared" and are named "@N" elsewhere. A leaf is a string: "f 64 3 7 7" is a float tensor of shape (64, 3, 7, 7), "i"
an integer scalar.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

_FILE = Path(__file__).resolve().parent / "key_tables.json"
_LEAST_SHARED_CHARACTERS = 40

Tree: TypeAlias = "str | dict[str, Tree]"


class Expected(NamedTuple):
    """Shape of a tensor in an official checkpoint, and whether it is a floating-point tensor."""

    shape: tuple[int, ...]
    floating: bool


def key_table(name: str) -> dict[str, Expected]:
    """The keys of an official checkpoint.

    Raises:
        ValueError: no such table.
    """
    content = _content()
    if name not in content["tables"]:
        raise ValueError(f"no key table {name!r}: choose one of {', '.join(sorted(content['tables']))}")
    table: dict[str, Expected] = {}
    _unfold(content["tables"][name], "", content["shared"], table)
    return table


def table_names() -> list[str]:
    """Names that `key_table` takes, sorted."""
    return sorted(_content()["tables"])


def tensor_bytes(name: str) -> int:
    """Bytes of a table's tensors, floats in float32 and integers in int64: about the size of the checkpoint."""
    total = 0
    for expected in key_table(name).values():
        count = 4 if expected.floating else 8
        for side in expected.shape:
            count *= side
        total += count
    return total


def pack(tables: Mapping[str, Mapping[str, Expected]]) -> str:
    """The text of `key_tables.json` for these tables."""
    trees: dict[str, Tree] = {name: _fold(table) for name, table in tables.items()}
    seen: Counter[str] = Counter()
    for tree in trees.values():
        _count(tree, seen)
    often = {text for text, times in seen.items() if times > 1 and len(text) > _LEAST_SHARED_CHARACTERS}
    numbers: dict[str, str] = {}
    shared: dict[str, Tree] = {}

    def replaced(tree: Tree) -> Tree:
        if isinstance(tree, str):
            return tree
        text = json.dumps(tree, sort_keys=True)
        if text in numbers:
            return numbers[text]
        result: Tree = {key: replaced(value) for key, value in tree.items()}
        if text in often:
            numbers[text] = f"@{len(numbers)}"
            shared[numbers[text]] = result
            return numbers[text]
        return result

    packed = {name: replaced(tree) for name, tree in trees.items()}
    lines = [
        '{"about": "keys, shapes and kinds of the official checkpoints; see key_tables.py",',
        '"shared": {',
        ",\n".join(f"{json.dumps(key)}: {json.dumps(shared[key])}" for key in shared),
        '}, "tables": {',
        ",\n".join(f"{json.dumps(key)}: {json.dumps(packed[key])}" for key in packed),
        "}}",
    ]
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=1)
def _content() -> dict[str, dict[str, Tree]]:
    content: dict[str, dict[str, Tree]] = json.loads(_FILE.read_text("utf-8"))
    return content


def _unfold(tree: Tree, prefix: str, shared: dict[str, Tree], into: dict[str, Expected]) -> None:
    if isinstance(tree, dict):
        for part, below in tree.items():
            _unfold(below, f"{prefix}.{part}" if prefix else part, shared, into)
    elif tree.startswith("@"):
        _unfold(shared[tree], prefix, shared, into)
    else:
        kind, *sides = tree.split()
        into[prefix] = Expected(tuple(int(side) for side in sides), kind == "f")


def _fold(table: Mapping[str, Expected]) -> dict[str, Tree]:
    root: dict[str, Tree] = {}
    for key in sorted(table):
        node = root
        *parts, last = key.split(".")
        for part in parts:
            below = node.setdefault(part, {})
            if isinstance(below, str):
                raise ValueError(f"key {key!r} lies below the tensor {part!r}")
            node = below
        node[last] = " ".join(["f" if table[key].floating else "i", *map(str, table[key].shape)])
    return root


def _count(tree: Tree, seen: Counter[str]) -> None:
    if isinstance(tree, dict):
        seen[json.dumps(tree, sort_keys=True)] += 1
        for below in tree.values():
            _count(below, seen)
