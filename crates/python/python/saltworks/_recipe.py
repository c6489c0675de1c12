"""A recipe from Python's values."""

import json
import os
from collections.abc import Mapping

import numpy as np


def as_json(recipe):
    """The recipe as JSON. Raises ValueError for values that a recipe cannot hold."""
    return json.dumps(_plain(recipe, "recipe"), allow_nan=False)


def _plain(value, where):
    """Converts NumPy's values and paths to Python's own values. `where` is for messages."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{where}[{place}]") for place, inner in enumerate(value)]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist(), where)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (str, bool, int, float)):
        return value
    advice = "Leave the key out" if value is None else "Give a number, a text, a list or a dictionary"
    raise ValueError(f"{where} is {value!r}: no recipe holds that. {advice}")
