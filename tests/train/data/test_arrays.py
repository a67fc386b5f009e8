"""Arrays of windows."""

import numpy as np

from train.data.arrays import averaged_signals


def test_the_mean_of_repeats_is_over_those_that_are_there() -> None:
    draws = np.random.default_rng(0)
    repeats = []
    for _ in range(3):
        mask = np.ones((2, 5), np.float32)
        repeats.append({"fmri": draws.normal(size=(2, 5, 4)).astype(np.float32), "fmri_mask": mask})
    first, second, third = (repeat["fmri"] for repeat in repeats)
    # The first lacks a volume, which is zero, and a second one is lacking in all.
    first[0, 1] = 0
    repeats[0]["fmri_mask"][0, 1] = 0
    for repeat in repeats:
        repeat["fmri"][1, 3] = 0
        repeat["fmri_mask"][1, 3] = 0
    averaged = averaged_signals(repeats)
    assert averaged.keys() == {"fmri", "fmri_mask"}
    np.testing.assert_allclose(
        averaged["fmri"][0, 0], (first[0, 0] + second[0, 0] + third[0, 0]) / 3, rtol=1e-6
    )
    np.testing.assert_allclose(averaged["fmri"][0, 1], (second[0, 1] + third[0, 1]) / 2, rtol=1e-6)
    assert not averaged["fmri"][1, 3].any()
    assert averaged["fmri_mask"].sum() == 9
    assert averaged_signals(repeats[:1]) is repeats[0]
