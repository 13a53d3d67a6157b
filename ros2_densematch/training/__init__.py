"""Retraining the matchers offline: data, losses and the trainer behind `densematch train`."""
