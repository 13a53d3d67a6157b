"""Is the answer of the first filter of `gcm` a probability? Reliability curve and expected calibration error at 1.5 px.

    python benchmarks/calibration.py --data ../shared/data --scenes out/gcm-small/scenes [--pairs 80] [--seed 99]

The pairs are drawn with a seed that the training did not use, from the same photos, photo sets and rendered scenes.
Of the 160 groups of rendered views those that the folder lacks are rendered first: 1.5 s of one core each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ros2_densematch.evaluation.scores.calibration import average_precision, calibration
from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.training.data.judged import JudgedSource
from ros2_densematch.training.data.multiview import MultiviewPairs
from ros2_densematch.training.data.photometric import PhotometricConfig, augment
from ros2_densematch.training.data.photos import HomographyPairs
from ros2_densematch.training.data.scenes import ScenePairs
from ros2_densematch.training.images import ImageStore
from ros2_densematch.training.scenes.cache import SceneRenderConfig, fill_cache
from ros2_densematch.training.scenes.dressing import SceneLibrary

GROUPS = 160  # as in config/training/gcm-small.yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scenes", type=Path, required=True, help="rendered scenes, as densematch train makes them")
    parser.add_argument("--pairs", type=int, default=80)
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--weights", type=Path, help="of gcm; default: the shipped ones")
    arguments = parser.parse_args()
    library = SceneLibrary(arguments.data / "train_scenes")
    fill_cache(
        arguments.scenes, library, SceneRenderConfig(groups=GROUPS), on_group=lambda i, n: print(f"scene {i}/{n}")
    )
    store = ImageStore()
    sources: list[JudgedSource] = [
        HomographyPairs(arguments.data / "train_photos", store=store).judged(),
        MultiviewPairs(arguments.data / "train_multiview" / "photos", store=store).judged(),
        ScenePairs(arguments.scenes, groups=GROUPS).judged(),
    ]
    matcher = GcmMatcher(device="cpu", weights=None if arguments.weights is None else str(arguments.weights))
    photometric = PhotometricConfig(strength=0.5)
    score, correlation, right = [], [], []
    for i in range(arguments.pairs):
        rng = np.random.default_rng((arguments.seed, i))
        pair = sources[int(rng.choice(3, p=(0.25, 0.35, 0.40)))].draw(rng)
        encodings = [matcher.encode(augment(image, rng, photometric)).data for image in (pair.image0, pair.image1)]
        candidates = matcher.candidates(encodings[0], encodings[1])
        label = pair.judge(candidates.reference_xy, candidates.query_xy)
        judged = label >= 0
        logit = matcher.first_logit(candidates)
        if logit is None:
            parser.error(f"{arguments.weights} holds no match filter: give weights that do")
        score.append(1 / (1 + np.exp(-logit[judged])))
        correlation.append(candidates.correlation[judged])
        right.append(label[judged] == 1)
    p, c, r = np.concatenate(score), np.concatenate(correlation), np.concatenate(right)
    found = calibration(p, r)
    print(f"{len(p)} judged candidates, {r.mean():.0%} right; expected calibration error {found.expected_error:.3f}")
    for bin in found.curve:
        print(f"  score {bin.score:.2f}: {bin.share_right:.2f} right ({bin.count})")
    alone = average_precision(c, r)
    print(f"average precision: filter {found.average_precision:.3f}, correlation alone {alone:.3f}")


if __name__ == "__main__":
    main()
