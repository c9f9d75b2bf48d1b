"""The work of the demo that is pure Python. Isolated workers import it, so it needs little."""

from __future__ import annotations

import tokenize
from collections import Counter
from io import BytesIO

from ._files import Work, unreadable


def count_tokens(path: str) -> Work:
    """Read and tokenize one file of Python, and count its tokens by type.

    It does not raise if the file cannot be read, or is no Python: the result says so.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            source = file.read()
    except OSError as error:
        return unreadable(path, error)
    try:
        # By type and not by name, which is looked up but once for each.
        types = Counter(token.type for token in tokenize.tokenize(BytesIO(source).readline))
    except (SyntaxError, UnicodeError, tokenize.TokenError):
        return Work(1, len(source), Counter(untokenized=1))
    return Work(1, len(source), Counter({tokenize.tok_name[key]: n for key, n in types.items()}))
