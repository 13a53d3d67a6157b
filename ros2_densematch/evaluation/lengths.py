"""Lengths for people: millimetres or metres, by their size."""

from __future__ import annotations

_MILLIMETRES_BELOW_M = 0.1


def unit_for(largest_m: float) -> tuple[str, float]:
    """The unit in which lengths up to `largest_m` metres are shown, and what metres are multiplied by."""
    return ("mm", 1000.0) if abs(largest_m) < _MILLIMETRES_BELOW_M else ("m", 1.0)


def length_in_words(metres: float) -> str:
    """A length with three digits, as "4.56 mm" or "1.23 m"."""
    unit, factor = unit_for(metres)
    value = metres * factor
    return f"{value:.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"
