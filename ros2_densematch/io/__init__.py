"""Frames in (`sources`: bags, videos, image folders), results out (`results`: bag, TUM trajectory, CSV)."""
