"""Trajectories of sequences with true poses: tracked once, stored, scored as often as wanted."""
