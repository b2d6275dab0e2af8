"""Files of arrays: equal bytes whatever wrote them."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile

import numpy as np
import pytest

from repix.arrays import check_numbers, load_arrays, save_arrays
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


def array(value) -> bytes:
    data = io.BytesIO()
    np.save(data, value)
    return data.getvalue()


def zipped(*members: tuple[str, bytes], times: int = 1) -> bytes:
    """Return a zip whose table of contents names its members so many times."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        for name, content in members:
            archive.writestr(name, content)
    whole = data.getvalue()
    start = whole.index(b"PK\1\2")
    table = whole[start : whole.index(b"PK\5\6")] * times
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *[len(members) * times] * 2, len(table), start, 0)
    return whole[:start] + table + end


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (array(np.ones(3)), "it is no .npz, or was cut short"),
        (b"", "it is no .npz, or was cut short"),
        (zipped(("a.npy", array(np.ones(3))), ("a.npy", array(np.zeros(3)))), "it holds two arrays of one name"),
        (zipped(("a.npy", array(np.ones(3))), times=3), "it holds two arrays of one name"),
        (zipped(("a.txt", b"hello")), "'a.txt' is no array"),
        (zipped(("a.npy", array(np.ones(3)) + b"x")), "'a.npy' has bytes behind its array"),
        (zipped(("a.npy", array(np.array([{}], object)))), "Object arrays cannot be loaded when allow_pickle=False"),
    ],
)
def test_what_is_no_file_of_arrays_is_refused_with_its_reason(tmp_path, data, why):
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(ValueError) as caught:
        load_arrays(tmp_path / "x.npz")
    assert str(caught.value) == why


def test_nobody_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"it is no \.npz"):
        load_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (np.full(3, np.nan, np.float32), "a holds NaN or infinite numbers"),
        (np.full(3, np.inf, np.float32), "a holds NaN or infinite numbers"),
        (np.ones(3), "a holds float64 numbers, not float32"),
        (np.array(["x"]), "a holds <U1 numbers, not float32"),
    ],
)
def test_numbers_that_are_no_weights_are_refused(given, why):
    check_numbers({"a": np.ones(3, np.float32), "b": given}, {"a": "float32"})
    with pytest.raises(ValueError) as caught:
        check_numbers({"a": given}, {"a": "float32"})
    assert str(caught.value) == why


def test_a_header_that_claims_more_than_the_file_has_is_refused_before_room_is_made_for_it(tmp_path):
    """So that too little memory is the machine's, and says nothing of the file."""
    save_arrays(tmp_path / "x.npz", {"a": np.zeros((111, 222), np.float32)})
    data = (tmp_path / "x.npz").read_bytes()
    assert data.count(b"(111, 222)") == 1
    (tmp_path / "x.npz").write_bytes(data.replace(b"(111, 222), }     ", b"(1119999, 2229), }"))
    with pytest.raises(ValueError, match=r"'a\.npy' claims more bytes than it has"):
        load_arrays(tmp_path / "x.npz")
