"""What is usual of an input leaves out what is missing, and comes back from JSON as it was."""

import json

import numpy as np
import pandas as pd

from models.usual import from_dict, to_dict, usual

nan = np.nan
BLOCK = np.column_stack([np.arange(11.0), np.where(np.arange(11) % 2, nan, 4.0), np.full(11, nan)]).astype(np.float32)


def test_median_and_range_of_what_is_there():
    found = usual(BLOCK, ["all", "some", "none"])
    np.testing.assert_array_equal(found, [[5, 1, 9], [4, 4, 4], [nan, nan, nan]])
    assert usual(BLOCK[:0], ["all", "some", "none"]).isna().all(axis=None)


def test_it_survives_text():
    found = usual(BLOCK, ["all", "some", "none"])
    state = json.loads(json.dumps(to_dict(found), allow_nan=False))
    pd.testing.assert_frame_equal(from_dict(state, list(found.index)), found)


def test_a_model_saved_before_ranges_were_kept_knows_none():
    found = from_dict({"usual": [1.0, None]}, ["a", "b"])
    np.testing.assert_array_equal(found, [[1, nan, nan], [nan, nan, nan]])
