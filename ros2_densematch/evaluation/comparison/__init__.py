"""Entries side by side on one data set: the run over both stages, and what is written of it."""
