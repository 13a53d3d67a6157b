"""Frames in (bags, videos, image folders), results out (bag, TUM trajectory, CSV, NumPy files)."""
