"""Rendered scenes with exact depth and pose: what the demo flies through and what the accuracy tests look at.

Everything is drawn here, from a seed: no file, no download and no GPU are needed.
"""
