"""Crops lie in their frame, and captions change a little."""

import numpy as np

from train.targets.variants import changed_captions, crops

CAPTIONS = np.array([["the red cat sees a dog", "a house"], ["the blue dog", ""]])


def test_crops_are_parts_of_their_frame() -> None:
    rows, columns = np.meshgrid(np.arange(20), np.arange(30), indexing="ij")
    frame = np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)
    parts = crops(frame, 5)
    assert len(parts) == 5
    for part in parts:
        height, width, _ = part.shape
        assert 16 <= height <= 20
        assert 24 <= width <= 30
        first_row, first_column, _ = part[0, 0]
        np.testing.assert_array_equal(
            part, frame[first_row : first_row + height, first_column : first_column + width]
        )
    assert len({part.shape for part in parts}) > 1
    np.testing.assert_array_equal(parts[0], crops(frame, 5)[0])


def test_captions_keep_their_length_and_get_words_of_others() -> None:
    texts = changed_captions(CAPTIONS, 4)
    assert texts.shape == (2, 2, 5)
    np.testing.assert_array_equal(texts[:, :, 0], CAPTIONS)
    vocabulary = {word for text in CAPTIONS.ravel() for word in text.split()}
    for caption, versions in zip(CAPTIONS.ravel(), texts.reshape(4, 5), strict=True):
        assert {len(text.split()) for text in versions} == {len(caption.split())}
        assert {word for text in versions for word in text.split()} <= vocabulary
    assert (texts[0, 0, 1:] != CAPTIONS[0, 0]).any()
    np.testing.assert_array_equal(texts, changed_captions(CAPTIONS, 4))
