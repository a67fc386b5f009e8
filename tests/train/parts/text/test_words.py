"""Captions say what is to be seen, and words become numbers and vectors."""

import numpy as np
import torch
from numpy.typing import NDArray

from train.parts.text.words import Vocabulary, WordTable, captions, line_up


def _flat(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((32, 64, 96, 3), colour, np.uint8)


def _stripes(speed: int) -> NDArray[np.uint8]:
    """Vertical stripes, 16 pixels wide, that move to the right by so many pixels a frame."""
    columns = np.arange(96)
    frames = [128 + 100 * np.sin(2 * np.pi * (columns - speed * n) / 16) for n in range(32)]
    return np.broadcast_to(np.array(frames)[:, None, :, None], (32, 64, 96, 3)).astype(np.uint8)


def test_a_caption_says_how_red_green_and_blue_each_place_is_and_brightness_and_motion() -> None:
    clip = _flat((20, 20, 20))
    clip[16:, 32:, :32] = (200, 40, 40)
    (caption,) = captions([clip])
    assert len(caption.split()) == 3 * 4 * 6 + 2
    assert caption.endswith(" dark still")
    tokens = {
        "early/bottom-far-left/red-0/green-0/blue-0",
        "late/bottom-far-left/red-6/green-1/blue-1",
        "late/top-right/red-0/green-0/blue-0",
    }
    assert tokens <= {*caption.split()}
    assert captions([_flat((255, 255, 255))])[0].startswith("early/top-far-left/red-7/green-7/blue-7 ")


def test_words_of_a_scale_begin_on_a_line_in_their_order() -> None:
    torch.manual_seed(0)
    words = ["dim", "red-0", "red-2", "red-4", "blue-4"]
    table = WordTable(len(words), 6)
    before = table.table.weight.clone()
    line_up(table, words)
    after = table.table.weight
    assert torch.equal(before[:2], after[:2])
    assert torch.allclose(after[3] - after[2], after[4] - after[3])
    assert not torch.allclose(after[4], after[5])


def test_a_caption_says_which_way_a_clip_moves() -> None:
    rightward, leftward, still = captions([_stripes(2), _stripes(-2), _stripes(0)])
    assert "moving-right" in rightward.split()
    assert "moving-left" in leftward.split()
    assert "still" in still.split()


def test_words_of_an_events_file_come_last_as_they_are() -> None:
    (caption,) = captions([_flat((20, 20, 20))], ["Xyzzy plugh"])
    assert caption.endswith(" dark still Xyzzy plugh")


def test_words_have_numbers_and_unknown_ones_the_number_of_none() -> None:
    vocabulary = Vocabulary.of(["a red/dot", "a blue/dot"])
    assert vocabulary.words == ["a", "blue", "dot", "red"]
    numbers = vocabulary.numbers(["red/dot", "a/green/dot a/a/a/a/a/red and more"], 2)
    assert numbers.tolist() == [
        [[4, 3, 0, 0, 0], [0, 0, 0, 0, 0]],
        [[1, 0, 3, 0, 0], [1, 1, 1, 1, 1]],
    ]
    assert Vocabulary(vocabulary.words).numbers(["blue"], 1).tolist() == [[[2, 0, 0, 0, 0]]]


def test_a_token_is_the_sum_of_its_words_and_no_word_is_zero() -> None:
    torch.manual_seed(0)
    table = WordTable(4, 6)
    tokens = table(torch.tensor([[[4, 3, 0], [2, 0, 0], [0, 0, 0]]]))
    assert tokens.shape == (1, 3, 6)
    vectors = table.table.weight
    assert torch.allclose(tokens[0, 0], vectors[4] + vectors[3])
    assert torch.equal(tokens[0, 1], vectors[2])
    assert torch.equal(tokens[0, 2], torch.zeros(6))
