"""Cameras, two-view geometry, warps and trajectories. Knows nothing of networks, messages or files of other modules."""
