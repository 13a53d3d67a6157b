"""Matching down a feature pyramid: what DFM and GCM share."""
