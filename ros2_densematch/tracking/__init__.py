"""Keyframes and the frame-by-frame tracker: pure, deterministic, no input or output."""
