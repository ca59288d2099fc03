"""Item titles and descriptions: words per pole (one end of a taste dimension) and nouns per category."""

from typing import Final

import numpy as np

from recsys.simulator.dials import FloatArray, IntArray, ShopDials

WORDS_PER_POLE: Final = 10
CATEGORY_NOUNS: Final[dict[str, tuple[str, ...]]] = {
    "lighting": ("lamp", "lantern", "candle", "chandelier"),
    "kitchen": ("kettle", "pan", "knife", "teapot"),
    "garden": ("planter", "trowel", "bench", "trellis"),
    "books": ("novel", "atlas", "anthology", "cookbook"),
    "music": ("record", "ukulele", "speaker", "songbook"),
    "toys": ("puzzle", "train", "kite", "dollhouse"),
    "sports": ("racket", "kettlebell", "helmet", "yoga mat"),
    "outdoors": ("tent", "stove", "hammock", "compass"),
    "shoes": ("sneaker", "boot", "sandal", "loafer"),
    "coats": ("parka", "raincoat", "blazer", "cape"),
    "bags": ("backpack", "tote", "satchel", "suitcase"),
    "jewellery": ("ring", "brooch", "bracelet", "pendant"),
    "beauty": ("soap", "perfume", "balm", "brush"),
    "furniture": ("chair", "table", "shelf", "stool"),
    "bedding": ("quilt", "pillow", "blanket", "duvet"),
    "electronics": ("radio", "camera", "charger", "headset"),
    "tools": ("drill", "saw", "wrench", "hammer"),
    "pets": ("leash", "basket", "aquarium", "scratcher"),
    "food": ("honey", "coffee", "chocolate", "olive oil"),
    "art": ("print", "easel", "vase", "sculpture"),
}
CATEGORIES: Final = tuple(CATEGORY_NOUNS)
_ONSETS: Final = ("b", "br", "d", "f", "gl", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "z")
_VOWELS: Final = ("a", "e", "i", "o", "u")
_CODAS: Final = ("l", "n", "r", "s", "m", "x", "d", "th")


def pole_words(rank: int) -> list[list[str]]:
    """Return the words of the 2 × rank poles: the same in every shop, no word in two poles."""
    words = [
        f"{onset}{vowel}{middle}{second}{coda}"
        for middle in ("r", "v")
        for coda in _CODAS
        for second in _VOWELS
        for vowel in _VOWELS
        for onset in _ONSETS
    ]
    poles = 2 * rank
    # The stride gives similar-looking words to different poles.
    return [[words[(w * poles + p) * 7 % len(words)] for w in range(WORDS_PER_POLE)] for p in range(poles)]


def draw_item_texts(
    dials: ShopDials, factors: FloatArray, categories: IntArray, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Draw a title and a description per item.

    A word's pole has the probability softmax(word_sharpness × ± factor in units of its spread).
    Args: factors [N, rank]: item factors of click; categories [N].
    """
    count = len(categories)
    per_item = dials.title_words + dials.description_words
    scaled = factors * (dials.word_sharpness * np.sqrt(dials.rank))
    weights = np.exp(np.concatenate([scaled, -scaled], axis=1))
    cumulative = np.cumsum(weights, axis=1)
    picks = rng.random((count, per_item)) * cumulative[:, -1:]
    poles = (picks[:, :, None] > cumulative[:, None, :]).sum(axis=2)
    chosen = rng.integers(WORDS_PER_POLE, size=(count, per_item))
    nouns = rng.integers(4, size=count)
    vocabulary = pole_words(dials.rank)
    titles, descriptions = [], []
    for item in range(count):
        words = [vocabulary[p][w] for p, w in zip(poles[item], chosen[item], strict=True)]
        noun = CATEGORY_NOUNS[CATEGORIES[categories[item]]][nouns[item]]
        titles.append(" ".join([*words[: dials.title_words], noun]).capitalize())
        descriptions.append(f"A {noun} with " + " ".join(words[dials.title_words :]) + ".")
    return titles, descriptions
