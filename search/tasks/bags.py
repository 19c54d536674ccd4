"""Texts as vectors: how often each token of a vocabulary stands in a text.

# N rows, L tokens of a row, V of the data set's vocabulary, D of the bag's
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ridgeline.search.tasks.columns import Three
from ridgeline.search.tasks.data import Array, UnfitDataset
from ridgeline.search.tasks.kinds import NUM_SPECIAL, Tokens
from ridgeline.search.tasks.settings import Bag

MIN_ROWS = 2
"""Of the training part that a token must stand in to be known."""

_MAX_CELLS = 2**28
"""Rows by tokens of a part: 1 GiB in memory and on the device."""


def num_rows_with(tokens_NL: Array, vocabulary_size: int) -> npt.NDArray[np.int64]:
    """In how many rows each token stands, [V]."""
    sorted_NL = np.sort(tokens_NL, axis=1)
    is_first_NL = np.ones(sorted_NL.shape, bool)
    is_first_NL[:, 1:] = sorted_NL[:, 1:] != sorted_NL[:, :-1]
    return np.bincount(sorted_NL[is_first_NL], minlength=vocabulary_size)


def bagged(parts: Three, tokens: Tokens, bag: Bag) -> Three:
    """Parts of tokens as vectors, float32 [N, D].

    Feature k is of the token that stands in the k-th most rows of the first part; of equal ones the
    one that comes first there.  A token that stands in fewer than `MIN_ROWS` of its rows is in no
    bag, so the last features may be 0 everywhere.  `tfidf` is scikit-learn's, with the document
    frequencies of the first part: its rows have length 1.

    Raises:
        UnfitDataset: they would take too much memory.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    (num_features,) = bag.vector(tokens).shape
    largest = max(map(len, parts))
    if largest * num_features > _MAX_CELLS:
        raise UnfitDataset(
            f"{largest} texts by {num_features} tokens are too many numbers: at most {_MAX_CELLS}; "
            "lower task.bag.vocabulary"
        )
    column_V = _columns(parts[0], tokens.vocabulary_size, num_features)
    counts = [_counts(tokens_NL, column_V, num_features) for tokens_NL in parts]
    if bag.weights == "tfidf":
        weighting = TfidfTransformer().fit(counts[0])
        counts = [weighting.transform(counts_ND) for counts_ND in counts]
    first, second, third = (counts_ND.toarray().astype(np.float32) for counts_ND in counts)
    return first, second, third


def _columns(train_NL: Array, vocabulary_size: int, num_features: int) -> npt.NDArray[np.int32]:
    """The feature of each token, -1 where it has none; [V]."""
    num_rows_V = num_rows_with(train_NL, vocabulary_size)
    # Not ids: these follow from the validation rows too.
    first_V = np.full(vocabulary_size, train_NL.size)
    tokens, first = np.unique(train_NL, return_index=True)
    first_V[tokens] = first
    order = np.lexsort((first_V, -num_rows_V))
    known = order[(num_rows_V[order] >= MIN_ROWS) & (order >= NUM_SPECIAL)][:num_features]
    column_V = np.full(vocabulary_size, -1, np.int32)
    column_V[known] = np.arange(len(known))
    return column_V


def _counts(tokens_NL: Array, column_V: npt.NDArray[np.int32], num_features: int) -> Any:
    """A sparse matrix, [N, D]."""
    from scipy.sparse import csr_matrix

    column_NL = column_V[tokens_NL]
    rows, _ = places = np.nonzero(column_NL >= 0)
    ones = np.ones(len(rows))
    return csr_matrix((ones, (rows, column_NL[places])), shape=(len(tokens_NL), num_features))
