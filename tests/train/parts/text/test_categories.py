"""Categories by the words of captions."""

from train.parts.text.categories import categories_of, category_names


def test_categories_are_the_commonest_words_that_are_said_of_no_place() -> None:
    captions = ["early/top/red-3 dim still car", "early/top/red-1 dim moving-left car", "dark still"]
    names = category_names(captions, 3)
    assert names == ["car", "dim", "still"]
    assert categories_of(captions, names).tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 1]]
    assert len(category_names(captions, 6)) == 5
