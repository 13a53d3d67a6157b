"""`sift`: the classical baseline."""
