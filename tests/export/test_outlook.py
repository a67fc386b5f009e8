"""What an export takes is told before it begins, and refused where there is no room."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from export import outlook
from export.outlook import CHECK, GOLDEN, GRAPHS, Outlook, calls_of, check_room, need_of, work_of
from rtdecode.errors import UsageError
from tests.refusals import refused
from train.interface.system import LargeWeights, Traced

# CogVideoX-5B with its autoencoder, and what a run of CineSync keeps in half precision.
PUBLISHED = LargeWeights(denoiser=5_570_283_072, decoder=215_583_907, bfloat16=True)
RUN = 2_400_000_000


@dataclass(frozen=True)
class Planned:
    """A plan of published weights."""

    weights: LargeWeights = PUBLISHED

    def large_weights(self) -> LargeWeights:
        return self.weights


def test_a_large_model_in_bfloat16_is_exported_in_it_with_one_copy_of_its_weights() -> None:
    needed = {precision: need_of(PUBLISHED, RUN, precision) for precision in ("bf16", "fp32", "int8")}
    assert needed["bf16"].memory < 26e9
    assert needed["fp32"].memory - needed["bf16"].memory == 2 * PUBLISHED.denoiser
    assert needed["int8"].memory > 2 * needed["fp32"].memory
    # In single precision, a copy in single precision has to be made.
    single = need_of(LargeWeights(PUBLISHED.denoiser, PUBLISHED.decoder, bfloat16=False), RUN, "bf16")
    assert single.memory > needed["int8"].memory - 1e9


@pytest.mark.parametrize("place", ["memory", "disk", "GPU memory"])
def test_what_there_is_no_room_for_is_refused_before_weights_are_read(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights.npz").write_bytes(b"0" * 1000)
    free = {"memory": 10**12, "disk": 10**12, "GPU memory": 10**12} | {place: 10**9}
    monkeypatch.setattr(outlook.memory_check, "available", lambda: free["memory"])
    # A tenth of what is written stays free.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1.1 * free["disk"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free["GPU memory"], 10**12))
    with refused(UsageError, "export-no-room", place=place, precision="bf16", free_gb=pytest.approx(1.0)):
        check_room(Planned(), tmp_path, tmp_path / "bundle", "bf16")
    assert "The export takes about" in capsys.readouterr().err
    free[place] = 10**12
    check_room(Planned(), tmp_path, tmp_path / "bundle", "bf16")


def test_the_operations_of_a_stage_are_counted_without_computing_them() -> None:
    stage = Traced("denoise", nn.Linear(8, 16), {"values": torch.zeros(3, 8)}, ["next"])
    assert work_of(stage).flop == 2 * 3 * 8 * 16
    assert work_of(stage).operations >= 1


def test_stages_are_called_for_each_step_and_each_turn() -> None:
    def drawing(name: str, frames: int) -> Traced:
        return Traced(name, nn.Identity(), {"latent": torch.zeros(1, 4, frames, 2, 2)}, ["frames"])

    stages = [
        Traced("encode", nn.Identity(), {"fmri": torch.zeros(1)}, ["condition"]),
        Traced("denoise", nn.Identity(), {"latent": torch.zeros(1)}, ["next"]),
        drawing("decode_first", 3),
        drawing("decode_next", 2),
    ]
    expected = {"encode": 3, "denoise": 12, "decode_first": 3, "decode_next": 9}
    assert calls_of(stages, latent_frames=9, windows=3, steps=4) == expected


def test_times_are_told_again_where_they_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(outlook.time, "monotonic", lambda: now_s[0])
    # A stage of 1.2e12 operations takes 300 s at a tenth of 1e10 a second.
    stage = Traced("encode", nn.Linear(8, 8), {"values": torch.zeros(1, 8)}, ["condition"])
    monkeypatch.setattr(outlook, "work_of", lambda _: outlook.StageWork(4 * 10**11, 10))
    monkeypatch.setattr(outlook, "speed", lambda _: 1e10)
    ahead = Outlook([stage], latent_frames=1, windows=3, steps=1, on_gpu=False)
    assert "The export takes about 10 minutes." in capsys.readouterr().err
    now_s[0] = 310.0
    ahead.after(GOLDEN)
    assert capsys.readouterr().err == ""
    now_s[0] = 700.0
    ahead.after(GRAPHS)
    assert "Writing the graphs took 6 minutes, and the rest takes about 5 minutes." in capsys.readouterr().err
    # Nothing is said of graphs in closed form.
    Outlook([], latent_frames=1, windows=3, steps=0, on_gpu=False).after(CHECK)
    assert capsys.readouterr().err == ""
