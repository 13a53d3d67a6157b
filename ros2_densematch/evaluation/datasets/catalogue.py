"""Data sets by short name: where they come from, under which licence, and how they lie on a disk. Nothing is
fetched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import cast

from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError, Layout, Task

_HERE = "ros2_densematch.evaluation.datasets"
# in the order in which they are tried on a folder that has no short name: module, attribute
_LAYOUTS = {
    "pair lists": ("pair_lists", "LAYOUT"),
    "MegaDepth-1500": ("megadepth1500", "LAYOUT"),
    "ScanNet-1500": ("scannet1500", "LAYOUT"),
    "WxBS": ("wxbs", "LAYOUT"),
    "Strecha": ("strecha", "LAYOUT"),
    "ETH3D": ("colmap_model", "LAYOUT"),
    "frames.csv": ("sequence", "LAYOUT"),
    "homography folders": ("homography_folders", "LAYOUT"),
    "Middlebury stereo": ("disparity", "MIDDLEBURY"),
    "KITTI stereo": ("disparity", "KITTI"),
    "Middlebury flow": ("flow_files", "MIDDLEBURY"),
    "Sintel": ("flow_files", "SINTEL"),
    "KITTI flow": ("flow_files", "KITTI"),
    "TSS": ("flow_files", "TSS"),
    "PF-Pascal": ("proposal_flow", "PASCAL"),
    "PF-Willow": ("proposal_flow", "WILLOW"),
    "Caltech-101": ("caltech101", "LAYOUT"),
}


@dataclass(frozen=True)
class Known:
    """A published data set.

    Attributes:
        task: which command it belongs to.
        layout: how it lies on a disk; the name of a layout.
        source: where it comes from.
        licence: of the data, short.
        research_only: whether commercial use is forbidden.
        files: what to put into the data folder.
    """

    task: Task
    layout: str
    source: str
    licence: str
    research_only: bool
    files: str


KNOWN: dict[str, Known] = {
    "megadepth1500": Known(
        "pose",
        "MegaDepth-1500",
        "images: MegaDepth v1, undistorted as D2-Net describes (www.cs.cornell.edu/projects/megadepth); lists: "
        "github.com/zju3dv/LoFTR, assets/megadepth_test_1500_scene_info",
        "photos under the licences of their Flickr authors; lists Apache-2.0",
        True,
        "the five lists 0015_*.npz and 0022_*.npz, and Undistorted_SfM/ with scenes 0015 and 0022",
    ),
    "scannet1500": Known(
        "pose",
        "ScanNet-1500",
        "images: ScanNet (www.scan-net.org, after signing its terms); lists: github.com/zju3dv/LoFTR, "
        "assets/scannet_test_1500",
        "ScanNet Terms of Use, non-commercial research",
        True,
        "test.npz, intrinsics.npz, and sceneSSSS_SS/ with color/ and pose/",
    ),
    "yfcc100m": Known(
        "pose",
        "pair lists",
        "images: YFCC100M as used by OANet; list: github.com/magicleap/SuperGluePretrainedNetwork, "
        "assets/yfcc_test_pairs_with_gt.txt",
        "photos under their Creative Commons licences; list non-commercial research",
        True,
        "yfcc_test_pairs_with_gt.txt and raw_images/ or yfcc100m/ with the images that it names",
    ),
    "wxbs": Known(
        "pose",
        "WxBS",
        "cmp.felk.cvut.cz/wbs, or the package wxbs-benchmark",
        "no licence stated: research use",
        True,
        "CATEGORY/PAIR/ with 01.png, 02.png and corrs.txt",
    ),
    "eth3d": Known(
        "pose",
        "ETH3D",
        "www.eth3d.net/datasets, multi-view, undistorted images with ground-truth cameras",
        "CC BY-NC-SA 4.0",
        True,
        "SCENE/ with images/ and dslr_calibration_undistorted/ (cameras.txt, images.txt)",
    ),
    "strecha": Known(
        "pose",
        "Strecha",
        "github.com/openMVG/SfM_quality_evaluation, Benchmarking_Camera_Calibration_2008",
        "research use; no licence file",
        True,
        "SCENE/ with images/ and gt_dense_cameras/ (NNNN.jpg.camera)",
    ),
    "hpatches": Known(
        "homography",
        "homography folders",
        "github.com/hpatches/hpatches-dataset, hpatches-sequences-release",
        "MIT for the collection; images of several sources",
        False,
        "i_*/ and v_*/ with 1.ppm to 6.ppm and H_1_2 to H_1_6",
    ),
    "middlebury-stereo": Known(
        "dense",
        "Middlebury stereo",
        "vision.middlebury.edu/stereo/data (2001, 2003, 2014, 2021)",
        "research use",
        True,
        "SCENE/ with im2, im6, disp2 (2001, 2003) or im0.png, im1.png, disp0.pfm (2014, 2021)",
    ),
    "middlebury-flow": Known(
        "dense",
        "Middlebury flow",
        "vision.middlebury.edu/flow/data, other-color-twoframes and other-gt-flow",
        "research use",
        True,
        "SCENE/frame10.png, frame11.png and SCENE/flow10.flo below one folder",
    ),
    "sintel": Known(
        "dense",
        "Sintel",
        "sintel.is.tue.mpg.de",
        "CC BY 3.0 (film); research use",
        True,
        "training/final and training/flow",
    ),
    "kitti-stereo": Known(
        "dense",
        "KITTI stereo",
        "www.cvlibs.net/datasets/kitti, stereo 2012 and 2015",
        "CC BY-NC-SA 3.0",
        True,
        "training/ with image_2, image_3, disp_occ_0 (2015) or colored_0, colored_1, disp_occ (2012)",
    ),
    "kitti-flow": Known(
        "dense",
        "KITTI flow",
        "www.cvlibs.net/datasets/kitti, flow 2012 and 2015",
        "CC BY-NC-SA 3.0",
        True,
        "training/ with image_2 and flow_occ (2015) or colored_0 and flow_occ (2012)",
    ),
    "tss": Known(
        "dense",
        "TSS",
        "taniai.space/projects/cvpr16_dccs (joint correspondence and cosegmentation)",
        "research use",
        True,
        "FG3DCar, JODS, PASCAL/ with PAIR/image1.png, image2.png, flow1.flo, flow2.flo",
    ),
    "pf-pascal": Known(
        "dense",
        "PF-Pascal",
        "www.di.ens.fr/willow/research/proposalflow, PF-dataset-PASCAL; list of test pairs: "
        "github.com/ignacio-rocco/ncnet",
        "images: PASCAL VOC 2011 (Flickr terms); annotations research use",
        True,
        "JPEGImages/ and test_pairs.csv (source_image, target_image, class, XA, YA, XB, YB)",
    ),
    "pf-willow": Known(
        "dense",
        "PF-Willow",
        "www.di.ens.fr/willow/research/proposalflow, PF-dataset; list: github.com/ignacio-rocco/cnngeometric_pytorch",
        "research use",
        True,
        "CLASS/*.png and test_pairs_pf.csv or test_pairs.csv",
    ),
    "caltech101": Known(
        "dense",
        "Caltech-101",
        "data.caltech.edu/records/mzrjq-6wc02; list: github.com/ignacio-rocco/weakalign",
        "CC BY 4.0",
        False,
        "101_ObjectCategories/, Annotations/ and test_pairs.csv",
    ),
}
TRAJECTORIES: dict[str, Known] = {
    "tum": Known(
        "pose",
        "TUM RGB-D",
        "cvg.cit.tum.de/data/datasets/rgbd-dataset",
        "CC BY 4.0",
        False,
        "a sequence folder with rgb.txt, rgb/ and groundtruth.txt",
    ),
    "euroc": Known(
        "pose",
        "EuRoC MAV",
        "doi.org/10.3929/ethz-b-000690084",
        "In Copyright, Non-Commercial Use Permitted",
        True,
        "a sequence folder with mav0/cam0 and mav0/state_groundtruth_estimate0",
    ),
    "kitti-odometry": Known(
        "pose",
        "KITTI odometry",
        "www.cvlibs.net/datasets/kitti, odometry",
        "CC BY-NC-SA 3.0",
        True,
        "sequences/SS/image_0, times.txt, calib.txt and poses/SS.txt",
    ),
}
# their poses are not public: matches go out in hloc's form, and hloc or the benchmark's server gives the figures
LOCALISATION: dict[str, Known] = {
    "inloc": Known(
        "pose",
        "hloc",
        "www.ok.sc.titech.ac.jp/INLOC; lists of pairs: github.com/cvg/Hierarchical-Localization, pairs/inloc",
        "research use, on request",
        True,
        "the images below one folder, and a list of pairs of query and database images",
    ),
    "aachen": Known(
        "pose",
        "hloc",
        "www.visuallocalization.net/datasets, Aachen Day-Night v1 and v1.1; lists of pairs: "
        "github.com/cvg/Hierarchical-Localization, pairs/aachen",
        "CC BY-NC-SA 4.0",
        True,
        "images_upright/ with db/ and query/, and a list of pairs of query and database images",
    ),
}


def layouts(task: Task) -> list[Layout]:
    """The layouts of a task, in the order in which they are tried."""
    found = [_layout(name) for name in _LAYOUTS]
    return [layout for layout in found if layout.task == task]


def _layout(name: str) -> Layout:
    module, attribute = _LAYOUTS[name]
    return cast(Layout, getattr(import_module(f"{_HERE}.{module}"), attribute))


def open_dataset(task: Task, data: str, folder: Path | None = None) -> Dataset:
    """A data set by short name or by its folder.

    Args:
        task: pose, homography or dense.
        data: short name, or a folder (or list) whose layout is recognised.
        folder: where the data set of that short name lies.

    Raises:
        DatasetError: the name needs a folder or belongs to another task, or no layout fits; the message says which
            files would.
        FileNotFoundError: the folder does not exist.
    """
    if data in LOCALISATION:
        raise DatasetError(
            f"{data} has no public poses: densematch match --pairs LIST --root IMAGES --export hloc --out DIR writes "
            "the matches for hloc, which localises and writes the file for the benchmark's server (docs/evaluation.md)"
        )
    known = KNOWN.get(data)
    if known is None:
        return _recognised(task, Path(data) if folder is None else folder)
    if known.task != task:
        raise DatasetError(f"{data} belongs to `eval {known.task}`, not to `eval {task}`")
    if folder is None:
        raise DatasetError(f"{data} needs --data DIR with {known.files}; `--download-help` says where it comes from")
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}: check --data")
    dataset = _layout(known.layout).read(folder)
    return replace(dataset, name=data, licence=known.licence, research_only=known.research_only)


def _recognised(task: Task, path: Path) -> Dataset:
    if not path.exists():
        names = ", ".join(name for name, known in KNOWN.items() if known.task == task)
        raise FileNotFoundError(
            f"{path} is no folder and no known data set: give a folder, or one of {names} with --data"
        )
    tried = layouts(task)
    for layout in tried:
        if layout.recognises(path):
            return layout.read(path)
    needs = "; ".join(f"{layout.name}: {layout.needs}" for layout in tried)
    raise DatasetError(f"{path} has no layout that `eval {task}` knows ({needs})")


def download_help(name: str | None) -> list[str]:
    """Where a data set comes from and under which licence, one line a fact; all of them for None."""
    everything = {**KNOWN, **TRAJECTORIES, **LOCALISATION}
    if name is not None and name not in everything:
        return [f"{name} is no known data set: {', '.join(everything)}"]
    lines = []
    for key, known in everything.items():
        if name in (None, key):
            task = "trajectory" if key in TRAJECTORIES else known.task
            command = "match --export hloc" if key in LOCALISATION else f"eval {task}"
            lines += [f"{key} ({command})", f"  from:    {known.source}", f"  licence: {known.licence}"]
            lines += ["  use:     research only"] if known.research_only else []
            lines += [f"  layout:  {known.files}"]
    return lines
