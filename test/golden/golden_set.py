"""The golden folder: its files, its tolerance rule, and the register of what was compared.

Prefix, sizes and settings are read from the JSON files, so that other sets of the same form work as well.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from weight_rule import check_weights, fill_table

# (model, file stem, array) -> "compared", or the reason for which it was skipped
Register = dict[tuple[str, str, str], str]


class GoldenSet:
    """One pair of files `<model>/<stem>.json` and `<model>/<stem>.npz`."""

    def __init__(self, folder: Path, model: str, stem: str, register: Register) -> None:
        self.model, self.stem = model, stem
        self._folder, self._register = folder / model, register
        self.settings: dict[str, Any] = json.loads((self._folder / f"{stem}.json").read_text())
        self.prefix: str = self.settings["seed_prefix"]

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name -> expected array."""
        with np.load(self._folder / f"{self.stem}.npz") as file:
            return dict(file)

    @cached_property
    def checkpoint(self) -> dict[str, Any]:
        """`checkpoint.json` of the model, or `key_table.json`, which has the same form."""
        names = [name for name in ("checkpoint.json", "key_table.json") if (self._folder / name).is_file()]
        return dict(json.loads((self._folder / names[0]).read_text()))

    def table(self, name: str | None = None) -> list[list[Any]]:
        """A key table of the checkpoint: rows [key, shape, dtype]; None takes the only one."""
        tables = self.checkpoint["key_tables"]
        return list(tables[name] if name is not None else next(iter(tables.values())))

    def state(self, name: str | None = None) -> dict[str, Tensor]:
        """The state dictionary of a key table by the weight rule, verified where the JSON has a `weight_check`."""
        state = fill_table(self.table(name), self.prefix)
        check = self.settings.get("weight_check", [])
        check_weights(state, check[name] if isinstance(check, dict) else [c for c in check if c["key"] in state])
        return state

    def tolerance(self, name: str) -> float:
        """max(1e-4 * max(1, max_abs), 10 * gap), of the README."""
        entry = self.settings["arrays"][name]
        largest = entry.get("max_abs", 0.0) or 0.0
        return max(1e-4 * max(1.0, largest), 10.0 * (entry.get("gap_f32_f64_max") or 0.0))

    def compare(
        self, name: str, got: Tensor | ArrayLike, *, tolerance: float | None = None, outliers: float = 0.0
    ) -> None:
        """Fails unless every element lies within the tolerance.

        Args:
            name: of the expected array.
            got: our result, of the same shape.
            tolerance: instead of the README's rule.
            outliers: share of the elements that may lie outside, where the README allows it.
        """
        want = self.arrays[name]
        value = _numpy(got)
        assert value.shape == want.shape, f"{self}/{name}: shape {value.shape}, expected {want.shape}"
        assert np.isfinite(value).all() or not np.isfinite(want).all(), f"{self}/{name}: not finite"
        limit = self.tolerance(name) if tolerance is None else tolerance
        difference = np.abs(value.astype(np.float64) - want.astype(np.float64))
        wrong = int((difference > limit).sum())
        worst = float(difference.max()) if difference.size else 0.0
        allowed = int(outliers * want.size)
        assert wrong <= allowed, (
            f"{self}/{name}: {wrong} of {want.size} elements differ by more than {limit:.3g} (allowed {allowed}), "
            f"the worst by {worst:.3g}"
        )
        self._register[self.model, self.stem, name] = "compared"

    def compare_integers(self, name: str, got: Tensor | ArrayLike, *, skip: NDArray[np.bool_] | None = None) -> None:
        """Fails unless all elements are equal; `skip` marks near ties (stored top-2 gap below 1e-4 relative)."""
        want = self.arrays[name]
        value = _numpy(got)
        assert value.shape == want.shape, f"{self}/{name}: shape {value.shape}, expected {want.shape}"
        wrong = value != want
        if skip is not None:
            wrong &= ~skip
        assert not wrong.any(), f"{self}/{name}: {int(wrong.sum())} of {want.size} integers differ"
        self._register[self.model, self.stem, name] = "compared"

    def mark(self, name: str, status: str = "compared") -> None:
        """Registers an array that a test compared in its own way, or skips one by name with a reason."""
        assert name in self.arrays, f"{self} has no array {name}"
        self._register[self.model, self.stem, name] = status

    def __str__(self) -> str:
        return f"{self.model}/{self.stem}"


class Golden:
    """The folder with the images and all sets."""

    def __init__(self, folder: Path, register: Register) -> None:
        self.folder, self._register = folder, register

    def open(self, model: str, stem: str) -> GoldenSet:
        """The set `<model>/<stem>`; a missing file is an error."""
        return GoldenSet(self.folder, model, stem, self._register)

    def image(self, name: str) -> NDArray[np.uint8]:
        """`images/<name>.png` as uint8 RGB (H, W, 3)."""
        from PIL import Image

        return np.array(Image.open(self.folder / "images" / f"{name}.png").convert("RGB"))


def expected_arrays(folder: Path) -> Register:
    """Every array of every .npz file under the folder, not compared yet."""
    register: Register = {}
    for path in sorted(folder.glob("*/*.npz")):
        with np.load(path) as file:
            register.update({(path.parent.name, path.stem, name): "" for name in file.files})
    return register


def _numpy(value: Tensor | ArrayLike) -> NDArray[Any]:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
