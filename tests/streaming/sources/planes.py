"""Slices as a scanner would have written them, without files."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from streaming.sources.folder.volume_assembler import Stacked, VolumeAssembler
from streaming.sources.formats.image import Moments, Plane

STEP = 3.0


@dataclass(frozen=True)
class Scan:
    """What a scanner says of its slices: `says` is ``number``, ``instances`` or both joined by a space."""

    slices: int = 6
    volumes: int = 5
    says: str = "number instances"
    promised: int | None = 6
    order: str = "time"
    uid: str = "1.2.3"
    series: int = 4
    tr_s: float | None = 1.0

    def plane(self, volume: int, place: int) -> Plane:
        """Slice `place` of one volume, filled with 100 * volume + place."""
        instance = volume * self.slices + place if self.order == "time" else place * self.volumes + volume
        affine = np.diag([2.0, 2.0, STEP, 1.0])
        affine[2, 3] = STEP * place
        return Plane(
            data=np.full((4, 3), 100 * (volume % 300) + place, np.int16),
            affine=affine,
            normal_mm=STEP * place,
            uid=self.uid,
            series=self.series,
            number=volume if "number" in self.says else None,
            instance=instance if "instances" in self.says else None,
            slices=self.promised,
            tr_s=self.tr_s,
            acquired=datetime(2026, 1, 1, 12) + timedelta(seconds=volume),
        )

    def planes(self) -> list[tuple[str, Plane]]:
        """All slices with their names, in order of time."""
        return [
            (f"{self.uid}/{volume:04d}-{place:03d}", self.plane(volume, place))
            for volume in range(self.volumes)
            for place in range(self.slices)
        ]


def moments_at(seconds: float) -> Moments:
    """A file that came and was read at one time."""
    return Moments(seconds, seconds, seconds)


def pushed(stacks: VolumeAssembler, planes: list[tuple[str, Plane]], now_at: float = 0.0) -> list[Stacked]:
    """All volumes that some slices complete, coming 1 ms apart."""
    return [
        volume
        for count, (name, plane) in enumerate(planes)
        for volume in stacks.push(plane, name, moments_at(now_at + count / 1000))
    ]


def check(volume: Stacked, number: int | None, slices: int = 6, without: tuple[int, ...] = ()) -> None:
    """Fail unless a volume is the one of that number, each slice in its place."""
    assert volume.image.number == number
    assert volume.image.data.shape == (4, 3, slices)
    assert volume.missing_slices == len(without)
    assert len(volume.names) == slices - len(without)
    first = volume.image.data[0, 0].astype(int)
    expected = [0 if place in without else 100 * (number or 0) + place for place in range(slices)]
    assert first.tolist() == expected
    assert np.allclose(volume.image.affine, np.diag([2.0, 2.0, STEP, 1.0]))
