"""The authors' checkpoints: where each comes from, its licence, what it must hold. None ships with the package."""

from __future__ import annotations

from dataclasses import dataclass

from ros2_densematch.weights.key_tables import tensor_bytes


@dataclass(frozen=True)
class Official:
    """One official checkpoint.

    Attributes:
        name: name in the catalogue, and of the stored file.
        matcher: matcher that loads it (for backbones: the first one that does).
        licence: what its publisher says, or that nothing is said.
        key_tables: the tables of `key_tables.json` that it may follow; the first is the usual one.
        url: where the publisher keeps it; empty where no address is published.
        sha256: digest of the published file, or its leading digits where only those are published (torchvision puts
            eight into the file's name); empty where unknown: then recorded at the first fetch and enforced later.
        size: bytes of the published file, rounded where its publisher rounds, 0 where unknown.
        restricted: the licence forbids some uses or is not clear: fetching needs an explicit consent.
        entry: the item of the file's dictionary that holds the tensors; empty for a plain state dictionary.
        unused: prefixes of keys that the file holds and nothing here reads.
        inert: further names that the pickle asks for; each gets an empty stand-in that runs nothing.
        version: of the network that these weights are for, where published versions differ in their operations but not
            in their keys; empty elsewhere.
    """

    name: str
    matcher: str
    licence: str
    key_tables: tuple[str, ...]
    url: str = ""
    sha256: str = ""
    size: int = 0
    restricted: bool = False
    entry: str = ""
    unused: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()
    version: str = ""

    @property
    def file(self) -> str:
        """Name of the published file, as in a mirror or a local folder."""
        return self.url.rsplit("/", 1)[-1] if self.url else f"{self.name}.pth.tar"

    @property
    def about_bytes(self) -> int:
        """Size of the published file where known, else that of its tensors."""
        return self.size or tensor_bytes(self.key_tables[0])


_MIT_SILENT = "MIT (repository; no separate statement for the weights)"
_R2D2 = "CC BY-NC-SA 3.0: non-commercial, share-alike"
_TORCHVISION = "BSD-3-Clause (torchvision repository); trained on ImageNet-1k"
_PARSKATT = "https://github.com/Parskatt/storage/releases/download"
_ROMA_V2 = "https://github.com/Parskatt/RoMaV2/releases/download"
_DINOV3 = "MIT (repository) and DINOv3 License (own terms, no military or weapons use; docs/matchers/roma_v2.md)"
_WILLOW = "www.di.ens.fr/willow/research"
_STREETVIEW = f"http://{_WILLOW}/cnngeometric/trained_models/pytorch/best_streetview_checkpoint_adam"
_WEAKALIGN = f"http://{_WILLOW}/weakalign/trained_models"
_NAVER = "https://github.com/naver/r2d2/raw/master/models"
_PYTORCH = "https://download.pytorch.org/models"


def _r2d2(name: str, sha256: str, size: int, inert: tuple[str, ...] = ()) -> Official:
    return Official(
        name=name,
        matcher="r2d2",
        licence=_R2D2,
        key_tables=(name,),
        url=f"{_NAVER}/{name}.pt",
        sha256=sha256,
        size=size,
        restricted=True,
        entry="state_dict",
        inert=inert,
    )


def _roma_v2(version: str, path: str, sha256: str, size: int = 0) -> Official:
    # one key table: the versions differ in an operation, and so in what the weights were trained for
    return Official(
        name=f"roma_v2_{version}",
        matcher="roma_v2",
        licence=_DINOV3,
        key_tables=("roma_v2",),
        url=f"{_ROMA_V2}/{path}",
        sha256=sha256,
        size=size,
        restricted=True,
        version=version,
    )


def _willow(name: str, matcher: str, url: str, *tables: str) -> Official:
    return Official(name, matcher, _MIT_SILENT, tables, url, entry="state_dict")


def _torchvision(name: str, file: str, megabytes: float, unused: tuple[str, ...]) -> Official:
    # the digits between the last dash and the suffix are the beginning of the file's SHA-256
    digits = file.removesuffix(".pth").rsplit("-", 1)[-1]
    matcher = "dfm" if name.startswith("vgg19") else "gcm_paper"
    size = round(megabytes * 1e6)
    return Official(
        name=name,
        matcher=matcher,
        licence=_TORCHVISION,
        key_tables=(name,),
        url=f"{_PYTORCH}/{file}",
        sha256=digits,
        size=size,
        unused=unused,
    )


OFFICIAL: dict[str, Official] = {
    official.name: official
    for official in (
        Official(
            "roma_outdoor",
            "roma",
            "MIT (repository: all code except DINOv2; no separate statement for the weights; trained on MegaDepth)",
            ("roma",),
            f"{_PARSKATT}/roma/roma_outdoor.pth",
        ),
        Official(
            "roma_indoor",
            "roma",
            "unclear: MIT repository, but also trained on ScanNet, whose terms are non-commercial research",
            ("roma",),
            f"{_PARSKATT}/roma/roma_indoor.pth",
            restricted=True,
        ),
        Official(
            "dinov2_vitl14",
            "roma",
            "Apache-2.0",
            ("dinov2_vitl14",),
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        ),
        _roma_v2(
            "2.0.1",
            "v2.0.1/romav2.0.1.pt",
            "1557dec0d21b62366465f7ff4d5fdf228cc695d0582e196ad2b80e05230828b7",
            1_095_883_548,
        ),
        _roma_v2("2.0.0", "weights/romav2.pt", "3516ccdbbd8eb89d50dfc0bc4562ccdcc2c60b7908e1819d5aae0cbe1bf979bc"),
        Official(
            "tiny_roma_outdoor",
            "tiny_roma",
            "MIT (repository; backbone architecture from XFeat, Apache-2.0)",
            ("tiny_roma_v1",),
            f"{_PARSKATT}/roma/tiny_roma_v1_outdoor.pth",
        ),
        Official(
            "dkm_outdoor",
            "dkm",
            "MIT (granted only for models trained on MegaDepth)",
            ("DKMv3",),
            f"{_PARSKATT}/dkmv3/DKMv3_outdoor.pth",
        ),
        Official(
            "dkm_indoor",
            "dkm",
            "unclear: the MIT text covers only models trained on MegaDepth; this one was also trained on ScanNet",
            ("DKMv3",),
            f"{_PARSKATT}/dkmv3/DKMv3_indoor.pth",
            restricted=True,
        ),
        _willow("ncnet_pfpascal", "ncnet", f"https://{_WILLOW}/ncnet/models/ncnet_pfpascal.pth.tar", "ncnet_pfpascal"),
        _willow("ncnet_ivd", "ncnet", f"https://{_WILLOW}/ncnet/models/ncnet_ivd.pth.tar", "ncnet_ivd"),
        _willow("sparsencnet_k10", "sparse_ncnet", "", "sparsencnet_k10"),
        _willow(
            "cnngeometric_affine",
            "cnngeometric",
            f"{_STREETVIEW}_affine_grid_loss_PAMI.pth.tar",
            "cnngeometric_vgg16_affine",
        ),
        _willow(
            "cnngeometric_homography",
            "cnngeometric",
            f"{_STREETVIEW}_hom_grid_loss_PAMI.pth.tar",
            "cnngeometric_vgg16_hom8",
            "cnngeometric_vgg16_hom9",
        ),
        _willow(
            "cnngeometric_tps", "cnngeometric", f"{_STREETVIEW}_tps_grid_loss_PAMI.pth.tar", "cnngeometric_vgg16_tps"
        ),
        _willow(
            "weakalign",
            "weakalign",
            f"{_WEAKALIGN}/weakalign_resnet101_affine_tps.pth.tar",
            "weakalign_resnet101_affine_tps",
        ),
        *(
            _willow(f"cnngeo_{kind}", "cnngeometric", f"{_WEAKALIGN}/cnngeo_{kind}.pth.tar", f"cnngeometric_{kind}")
            for kind in ("vgg16_affine", "vgg16_tps", "resnet101_affine", "resnet101_tps")
        ),
        _r2d2("r2d2_WASF_N16", "9ae90e02a9a133d100ca7aeaa32f4d4d7736a6dd222a530a25c8f7da5e508528", 1_950_677),
        _r2d2("r2d2_WAF_N16", "27cebd6608317b35198a76f60f87492110dee3e88ca382586a729dadb1a16b90", 1_950_677),
        _r2d2("r2d2_WASF_N8_big", "597dc13998e211e827c550bdc8f76dbb4aca32747846f96962c9168586cec418", 4_171_550),
        _r2d2(
            "faster2d2_WASF_N16",
            "217daa3a166bfe9bf2b68c05c1607a09dd4d552ae1bbeda885479d504eefc14b",
            3_251_102,
            # it keeps its training losses in a defaultdict(list)
            ("collections.defaultdict", "builtins.list"),
        ),
        Official(
            name="gcm_student",
            matcher="gcm_paper",
            licence="no licence file; code under R2D2's CC BY-NC-SA 3.0: non-commercial",
            key_tables=("dstl_r2d2",),
            url="https://github.com/AlexHan5832/GCM/raw/main/models/trained/dstl_r2d2.pt",
            sha256="5edd42c5f6763359351affe0517a39f3cff5f52d3b22fce291834fcefa740b72",
            size=1_174_503,
            restricted=True,
            entry="state_dict",
        ),
        _torchvision("vgg19", "vgg19-dcbb9e9d.pth", 574.7, ("classifier.", "features.34.")),
        _torchvision(
            "vgg19_bn",
            "vgg19_bn-c79401a0.pth",
            574.8,
            ("classifier.", "features.47.", "features.49.", "features.50."),
        ),
        _torchvision("resnet18", "resnet18-f37072fd.pth", 46.8, ("fc.", "layer4.")),
        _torchvision("resnet50", "resnet50-0676ba61.pth", 102.5, ("fc.", "layer4.")),
        _torchvision("resnet101", "resnet101-63fe2227.pth", 178.8, ("fc.", "layer4.")),
        _torchvision(
            "mobilenet_v3",
            "mobilenet_v3_large-8738ca79.pth",
            22.1,
            ("classifier.", *(f"features.{i}." for i in range(13, 17))),
        ),
        _torchvision(
            "efficientnet_v2",
            "efficientnet_v2_s-dd5fe13b.pth",
            86.7,
            ("classifier.", "features.6.", "features.7."),
        ),
    )
}


def official(name: str) -> Official:
    """The catalogue's entry.

    Raises:
        ValueError: no such name.
    """
    if name not in OFFICIAL:
        raise ValueError(f"no official weights {name!r}: choose one of {', '.join(sorted(OFFICIAL))}")
    return OFFICIAL[name]
