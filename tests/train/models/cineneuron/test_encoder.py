"""The encoder of CineNeuron on random windows: what is retrieved, and what the condition is made of."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.models.cineneuron.brain import BrainSizes, MlpSizes
from train.models.cineneuron.encoder import (
    RETRIEVED,
    SCORES,
    TOKENS,
    WEIGHTS,
    CineNeuronSizes,
    MemorylessEncoder,
    RememberingEncoder,
)
from train.models.cineneuron.memories import MemorySizes
from train.models.conditioned.encoder import Signals
from train.models.conditioned.memory import EXCLUDED, ROWS
from train.parts.encoders.transformer import TrunkSizes

SIGNALS = Signals(slots=2, voxels=7, channels=3, samples=8)
EMBEDDING = 6
CONDITIONS = 5
WIDTH = 8
ACTION = 4
ENTRIES = 10
BRAIN = BrainSizes(TrunkSizes(1, 16, 2, 16), tokens=4, eeg_tokens=2, action=ACTION, categories=3)
MEMORY = MemorySizes(entries=ENTRIES, items=3)


def encoder(
    memory: MemorySizes = MEMORY, brain: BrainSizes = BRAIN
) -> MemorylessEncoder | RememberingEncoder:
    torch.manual_seed(0)
    encoder = CineNeuronSizes(brain, memory).build(SIGNALS, EMBEDDING, CONDITIONS, WIDTH)
    if isinstance(encoder, RememberingEncoder):
        rng = np.random.default_rng(0)
        tokens = rng.standard_normal((ENTRIES, CONDITIONS * WIDTH)).astype(np.float16)
        encoder.remember(tokens, *(rng.standard_normal((ENTRIES, n)) for n in (EMBEDDING, EMBEDDING, ACTION)))
    return encoder.eval()


def signals(count: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "fmri": torch.randn(count, SIGNALS.slots, SIGNALS.voxels),
        "fmri_mask": torch.ones(count, SIGNALS.slots),
        "eeg": torch.randn(count, SIGNALS.channels, SIGNALS.samples),
        "eeg_mask": torch.ones(count, SIGNALS.samples),
    }


@torch.no_grad()
def test_the_condition_begins_as_the_text_of_the_best_entry() -> None:
    remembering = encoder()
    windows = signals()
    best = remembering.recall(windows)[ROWS][:, 0]
    text = remembering.look_up(best).reshape(-1, CONDITIONS, WIDTH)
    assert torch.equal(remembering(windows).tokens, text)


def test_the_scores_are_weighted_cosines_and_the_router_learns() -> None:
    remembering = encoder()
    torch.nn.init.ones_(remembering.integration.zero_brain.weight)
    windows = signals()
    recalled = remembering.recall(windows)
    vector = torch.nn.functional.normalize(recalled["vector"], dim=1)
    action = torch.nn.functional.normalize(remembering.brain.action(recalled["vector"]), dim=1)
    weights = remembering.memories.router(recalled[TOKENS].mean(1)).softmax(1)
    scores = (
        weights[:, :1] * (vector @ remembering.text_keys.T)
        + weights[:, 1:2] * (vector @ remembering.image_keys.T)
        + weights[:, 2:] * (action @ remembering.action_keys.T)
    )
    torch.testing.assert_close(recalled[SCORES], scores.sort(1, descending=True).values[:, :3])
    torch.testing.assert_close(recalled[WEIGHTS], weights)
    remembering(windows).tokens.square().sum().backward()
    assert remembering.memories.router.weight.grad is not None
    assert remembering.memories.router.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_entries_that_are_excluded_are_not_found() -> None:
    remembering = encoder()
    windows = signals()
    first = remembering.recall(windows)[ROWS]
    excluded = torch.zeros(len(first), ENTRIES, dtype=torch.bool).scatter_(1, first, True)
    again = remembering.recall(windows | {EXCLUDED: excluded})[ROWS]
    for before, after in zip(first.tolist(), again.tolist(), strict=True):
        assert not {*before} & {*after}


def test_a_copy_shares_the_table_and_has_weights_of_its_own() -> None:
    remembering = encoder()
    copied = copy.deepcopy(remembering)
    assert isinstance(copied, RememberingEncoder)
    assert copied.table is remembering.table
    torch.nn.init.ones_(copied.empty)
    assert not torch.equal(copied.empty, remembering.empty)


@torch.no_grad()
def test_losses_that_read_no_condition_look_nothing_up() -> None:
    remembering = encoder()
    assert isinstance(remembering, RememberingEncoder)
    encoded = remembering(signals())
    remembering.table = remembering.table[:0]
    alone = remembering.without_condition(signals())
    assert alone.tokens.shape[1] == 0
    assert torch.equal(alone.classes["brain"], encoded.classes["brain"])
    for name, values in encoded.predicted.items():
        assert torch.equal(alone.predicted[name], values)


@torch.no_grad()
def test_rows_may_be_drawn_as_a_control_and_are_never_exported() -> None:
    drawing = encoder(replace(MEMORY, rows="random"))
    assert isinstance(drawing, RememberingEncoder)
    windows = signals(40)
    rows = drawing.recall(windows)[ROWS]
    assert torch.equal(drawing.recall(windows)[ROWS], rows)
    assert all(len({*window}) == MEMORY.items for window in rows.tolist())
    assert {*rows.ravel().tolist()} == {*range(ENTRIES)}
    best = encoder().recall(windows)[ROWS]
    assert not torch.equal(rows.sort(1).values, best.sort(1).values)
    excluded = torch.zeros(len(rows), ENTRIES, dtype=torch.bool).index_fill_(1, torch.arange(5), True)
    assert int(drawing.recall(windows | {EXCLUDED: excluded})[ROWS].min()) == 5
    with refused(UsageError, "memory-random-rows-not-exported"):
        drawing.check_export()


@torch.no_grad()
def test_a_window_without_a_modality_retrieves_nothing() -> None:
    remembering = encoder()
    torch.nn.init.ones_(remembering.empty)
    windows = signals(2)
    windows["fmri_mask"][0] = 0
    windows["eeg_mask"][0] = 0
    recalled = remembering.recall(windows)
    assert recalled[RETRIEVED].ravel().tolist() == [0, 1]
    assert not recalled[SCORES][0].any()
    assert not recalled[WEIGHTS][0].any()
    tokens = remembering(windows).tokens
    assert torch.equal(tokens[0], remembering.empty)
    assert not torch.equal(tokens[1], remembering.empty)


@torch.no_grad()
def test_what_is_left_out_is_neither_compared_nor_read() -> None:
    remembering = encoder(replace(MEMORY, image=False))
    assert remembering.recall(signals())[WEIGHTS][:, 1].abs().max() == 0
    assert [*remembering.integration.attention] == ["action"]
    texts = encoder(replace(MEMORY, use="text"))
    torch.nn.init.ones_(texts.integration.zero_brain.weight)
    best = texts.recall(signals())[ROWS][:, 0]
    text = texts.look_up(best).reshape(-1, CONDITIONS, WIDTH)
    assert torch.equal(texts(signals()).tokens, text)


@torch.no_grad()
@pytest.mark.parametrize("memory", [replace(MEMORY, use="none"), replace(MEMORY, integration=False)])
def test_without_a_memory_the_brain_alone_conditions(memory: MemorySizes) -> None:
    alone = encoder(memory)
    assert isinstance(alone, MemorylessEncoder)
    tokens = alone(signals()).tokens
    assert tokens.shape == (4, CONDITIONS, WIDTH)
    # The convolutions of the first have to fill an empty text; the second has none.
    assert bool(tokens.any()) == (not memory.integration)


@torch.no_grad()
@pytest.mark.parametrize("modalities", [("fmri",), ("eeg",), ("fmri", "eeg")])
def test_any_modality_makes_as_many_tokens(modalities: tuple[str, ...]) -> None:
    remembering = encoder(brain=replace(BRAIN, modalities=modalities))
    assert remembering.recall(signals())[TOKENS].shape == (4, BRAIN.tokens, BRAIN.trunk.width)


@torch.no_grad()
def test_a_perceptron_of_fmri_may_stand_for_the_transformer() -> None:
    sizes = MlpSizes(hidden=12, blocks=2, tokens=4, width=16, heads=2, action=ACTION, categories=3)
    torch.manual_seed(0)
    remembering = CineNeuronSizes(sizes, MEMORY).build(SIGNALS, EMBEDDING, CONDITIONS, WIDTH).eval()
    assert remembering.modalities == ("fmri",)
    assert isinstance(remembering, RememberingEncoder)
    recalled = remembering.recall(signals())
    assert recalled[TOKENS].shape == (4, 4, 16)
    assert recalled["vector"].shape == (4, EMBEDDING)
    without = signals()
    without["fmri_mask"][:] = 0
    assert torch.unique(remembering.recall(without)["vector"], dim=0).shape == (1, EMBEDDING)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"use": "all"}, "memory-use-unknown"),
        ({"own": "leave"}, "memory-own-unknown"),
        ({"rows": "worst"}, "memory-rows-unknown"),
        ({"items": ENTRIES + 1}, "memory-items-out-of-range"),
        ({"items": 0}, "memory-items-out-of-range"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict, code: str) -> None:
    with refused(UsageError, code, **changes):
        replace(MEMORY, **changes)
