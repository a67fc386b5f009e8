"""What the film `known-shapes` never shows, so that a decoder can be judged on it.

The film of shapes draws each attribute by itself. `known-shapes` leaves out one value of each attribute, and
some pairs of values that are shown apart. A decoder that is trained on it and judged on `shapes` meets all of
them for the first time, and `novelty` says which of its shots are new to it, and how.

What is left out was chosen by hand before anything was trained. Of the shots of `shapes`, 8 % are known, 10 %
hold a pair, and 82 % hold a value. Values of the pairs are rarer among known shots than other values.
"""

from collections.abc import Mapping

SEEN_VALUES = "known"
COMBINATION = "combination"
VALUE = "value"
STRATA = (SEEN_VALUES, COMBINATION, VALUE)

# One value of each attribute.
UNSEEN = {
    "shape": "triangle",
    "color": "magenta",
    "background": "forest",
    "texture": "rings",
    "direction": "down-left",
    "pan": "pan-right",
}
# Pairs of values. Each value of a pair is shown with others.
UNSEEN_TOGETHER = (
    {"shape": "disc", "color": "red"},
    {"shape": "disc", "color": "green"},
    {"shape": "square", "color": "blue"},
    {"shape": "square", "color": "white"},
    {"background": "navy", "texture": "stripes"},
    {"background": "sky", "texture": "checks"},
    {"direction": "right", "pan": "pan-left"},
    {"direction": "left", "pan": "still"},
)


def novelty(attributes: Mapping[str, str]) -> str:
    """Tell what of a shot `known-shapes` never shows.

    Parameters
    ----------
    attributes : mapping
        Name -> value, of every attribute of `rtdecode.phantom.film.film.ATTRIBUTES`.

    Returns
    -------
    str
        ``value`` if a value is one that is never shown; else ``combination`` if two values are never shown
        together; else ``known``.

    Raises
    ------
    KeyError
        If an attribute is missing.
    """
    if any(attributes[name] == value for name, value in UNSEEN.items()):
        return VALUE
    if any(all(attributes[name] == pair[name] for name in pair) for pair in UNSEEN_TOGETHER):
        return COMBINATION
    return SEEN_VALUES
