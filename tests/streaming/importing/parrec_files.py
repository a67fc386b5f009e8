"""Write the volumes of a simulated session as Philips' research export does: a PAR header and a REC file."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tests.streaming.sources.formats.test_parrec import END, HEAD

# Axes P, S, L of the format in RAS, and those of a transverse voxel (column, row, slice) in P, S, L.
PSL = np.array([[0.0, 0, -1], [-1, 0, 0], [0, 1, 0]])
TRANSVERSE = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
LINE = (
    "{k} 1 {t} 1 0 0 {place} 16 100 {columns} {rows} 0 1 1 100 100 0 0 0 0 0 0 {thick} 0 0 1 1 2 {dx} {dy} "
    "30 {began} 0 0 1 70 0 0 0 1 0 1 1 0 0 0 0 0 1\n"
)


def write(path: Path, volumes: np.ndarray, affine: np.ndarray, tr_s: float) -> Path:
    """Write volumes (volume, x, y, z) of an affine whose voxel axes run as those of transverse slices do."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    turned = PSL.T @ (affine[:3, :3] / steps) @ TRANSVERSE.T
    # The format turns about its axes L, P and S, in this order.
    rl, ap, fh = Rotation.from_matrix(turned).as_euler("ZXY", degrees=True)
    shape = volumes.shape[1:]
    centre = PSL.T @ (affine @ [*((np.array(shape) - 1) / 2), 1])[:3]
    head = HEAD.format(
        slices=shape[2],
        volumes=len(volumes),
        tr=1000 * tr_s,
        angles=" ".join(f"{angle:.17g}" for angle in (ap, fh, rl)),
        centre=" ".join(f"{place:.17g}" for place in centre),
    )
    lines = [
        LINE.format(
            k=k + 1,
            t=t + 1,
            place=t * shape[2] + k,
            columns=shape[0],
            rows=shape[1],
            thick=f"{steps[2]:.17g}",
            dx=f"{steps[0]:.17g}",
            dy=f"{steps[1]:.17g}",
            began=f"{t * tr_s:.6g}",
        )
        for t in range(len(volumes))
        for k in range(shape[2])
    ]
    path.write_bytes((head + "\n" + "".join(lines) + END).replace("\n", "\r\n").encode())
    volumes.transpose(0, 3, 2, 1).astype("<u2").tofile(path.with_suffix(".rec"))
    return path
