"""Drop-in for RTAB-Map's Python matcher: key points matched by densematch.

    --Vis/CorNNType 6 --PyMatcher/Path .../share/densematch/rtabmap_densematch.py --Vis/FeatureType 1

Vis/FeatureType must have float descriptors (0 SURF, 1 SIFT, 11 SuperPoint); others RTAB-Map matches by brute force.

RTAB-Map runs this in its own process with its own Python: ros2_densematch must be importable there (source the
workspace; for a virtual environment, add its site-packages to PYTHONPATH). PyMatcher/Threshold is used; PyMatcher/
Iterations, Cuda and Model are not.
"""

import numpy as np

from ros2_densematch.live.rtabmap import match_descriptors

_threshold = 0.2


def init(descriptor_dim, match_threshold, iterations, cuda, model):
    """Called once by RTAB-Map, before the first match."""
    global _threshold
    _threshold = float(match_threshold)


def match(kpts_from, kpts_to, scores_from, scores_to, descriptors_from, descriptors_to, image_width, image_height):
    """Called by RTAB-Map with positional arguments; returns int64 (K, 2) indices (from, to)."""
    return match_descriptors(
        np.asarray(kpts_from),
        np.asarray(kpts_to),
        np.asarray(descriptors_from),
        np.asarray(descriptors_to),
        (int(image_width), int(image_height)),
        threshold=_threshold,
    )
