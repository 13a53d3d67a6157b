"""What DKM, RoMa and Tiny RoMa share: the network's frame, post-processing, sampling, precision and the matcher."""
