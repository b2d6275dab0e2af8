"""Files of arrays: equal bytes whatever wrote them."""

from __future__ import annotations

import zipfile

import numpy as np

from repix.arrays import load_arrays, save_arrays
from repix.files import digest_file


def test_the_bytes_do_not_depend_on_the_patch_version_of_python(tmp_path):
    arrays = {"b/kernel": np.arange(12, dtype=np.float32).reshape(3, 4), "a": np.array(7), "c": np.zeros((0, 2))}
    save_arrays(tmp_path / "x.npz", arrays)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        for entry in archive.infolist():
            # Of the form above 4 GiB the versions of Python write other headers.
            assert (entry.extra, entry.extract_version, entry.flag_bits) == (b"", 20, 0)
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    # As CPython 3.11.2 and 3.11.7 write them.
    assert digest_file(tmp_path / "x.npz") == "29809bd2b3864a42acc701e9ab7703acb21a0dcf73e1cf43a8795e50f778ae08"
    found = load_arrays(tmp_path / "x.npz")
    assert list(found) == ["a", "b/kernel", "c"] and all((found[name] == arrays[name]).all() for name in arrays)
    assert all(found[name].shape == arrays[name].shape and found[name].dtype == arrays[name].dtype for name in arrays)
