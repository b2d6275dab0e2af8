"""What strangers pack must come out whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import struct
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from repix.data import archives
from repix.errors import UserError
from tests.conftest import real_data

FILES = {"set/train/a.jpg": b"\xff\xd8 photo", "set/train/b.jpg": bytes(range(256)) * 9, "set/test/c.jpg": b""}
THOROUGH = "REPIX_SLOW" in os.environ  # several times as many damaged archives
LIMITS = {"max_bytes": 10_000_000, "max_files": 100, "max_ratio": 200.0}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tar_bytes(members, mode="w", **options) -> bytes:
    """Pack (name, bytes) or TarInfo with the standard library."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                info.mode = 0o4777
                tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def zip_bytes(members, compression=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as packed:
        for name, data in members:
            packed.writestr(name, data)
    return buffer.getvalue()


PACKERS = {
    "tar": lambda members: tar_bytes(members),
    "tar.gz": lambda members: tar_bytes(members, "w:gz"),
    "tar.xz": lambda members: tar_bytes(members, "w:xz"),
    "zip": zip_bytes,
}


def unpack(tmp_path: Path, data: bytes, **limits) -> dict[str, bytes]:
    archive = tmp_path / "given"
    archive.write_bytes(data)
    count = archives.unpack(archive, tmp_path / "out", **(LIMITS | limits))
    found = tree(tmp_path / "out")
    assert count == len(found)
    return found


def refused(tmp_path: Path, data: bytes, **limits) -> str:
    """Return the message of a refusal, having checked that it left nothing and kept what was there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "before").write_text("kept")
    with pytest.raises(UserError) as caught:
        unpack(tmp_path, data, **limits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "out"]
    assert tree(tmp_path / "out") == {"before": b"kept"}
    message = str(caught.value)
    assert "\n" not in message and "given" in message
    return message


@pytest.mark.parametrize("kind", PACKERS)
def test_every_format_comes_out_whole_by_content_not_by_name(tmp_path, kind):
    assert unpack(tmp_path, PACKERS[kind](FILES.items())) == FILES


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_large_numbers_of_every_tar_dialect(tmp_path, form):
    folder = "/".join(["deep" * 10] * 3)
    names = {f"{folder}/{'x' * 90}.png": b"long", "./dotted//name.png": b"dot"}
    if form != tarfile.USTAR_FORMAT:
        names["é" * 110 + ".png"] = b"accents"
    found = unpack(tmp_path, tar_bytes(names.items(), format=form))
    assert found == {name.replace("./", "").replace("//", "/"): data for name, data in names.items()}


def test_pax_size_and_base_256_size_are_read(tmp_path):
    info = tarfile.TarInfo("a.bin")
    info.size = 5
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\x80" + (5).to_bytes(11)
    assert unpack(tmp_path, rechecked(header) + b"hello".ljust(512, b"\0") + bytes(1024)) == {"a.bin": b"hello"}
    record = b"10 size=5\n"
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = b"x", len(record)
    header[124:136] = b"%011o\0" % 0
    data = pax.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + rechecked(header)
    assert unpack(tmp_path, data + b"hello".ljust(512, b"\0") + bytes(1024)) == {"a.bin": b"hello"}


def rechecked(header: bytearray) -> bytes:
    """Return a tar header with its checksum made right."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_folders_of_old_tars_and_empty_folders(tmp_path):
    info = tarfile.TarInfo("old/")
    info.type = tarfile.AREGTYPE
    info.name = "old/"
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[156:157] = b"\0"
    header[:5] = b"old/\0"
    empty = tarfile.TarInfo("empty")
    empty.type = tarfile.DIRTYPE
    assert unpack(tmp_path, rechecked(header) + tar_bytes([empty, ("old/a", b"1")])) == {"old/a": b"1"}
    assert (tmp_path / "out" / "empty").is_dir()


def test_a_folder_of_old_tars_that_has_bytes_is_refused(tmp_path):
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 7
    folder = tarfile.TarInfo("x")
    folder.type, folder.size = tarfile.AREGTYPE, 5
    blocks = [
        one.tobuf(tarfile.USTAR_FORMAT) + text.ljust(512, b"\0")
        for one, text in ((long_name, b"train/"), (folder, b"hello"))
    ]
    with pytest.raises(UserError, match="'train/' is a folder of 5 bytes"):
        unpack(tmp_path, b"".join(blocks) + tar_bytes([("a", b"1")]))


def test_streams_of_a_few_bytes_each_take_no_time_that_grows_with_their_square(tmp_path):
    packed = gzip.compress(tar_bytes([("a", b"1")])) + gzip.compress(b"", mtime=0) * 100_000
    began = time.monotonic()
    assert unpack(tmp_path, packed) == {"a": b"1"}
    assert time.monotonic() - began < 5


def test_modes_and_times_are_not_carried_over(tmp_path):
    before = os.umask(0o077)
    try:
        unpack(tmp_path, PACKERS["tar.gz"](FILES.items()))
    finally:
        os.umask(before)
    path = tmp_path / "out" / "set/train/a.jpg"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.stat().st_mtime > 1e9


@pytest.mark.parametrize("kind", PACKERS)
def test_macos_litter_is_left_out(tmp_path, kind):
    litter = {"__MACOSX/set/._a.jpg": b"x", "set/.DS_Store": b"x", "set/train/._b.jpg": b"x", ".DS_Store": b"x"}
    assert unpack(tmp_path, PACKERS[kind]((FILES | litter).items())) == FILES


@pytest.mark.parametrize("kind", PACKERS)
def test_folders_of_git_are_left_out(tmp_path, kind):
    """Their configuration may name programs, which git runs for whoever stands there."""
    theirs = {".git/config": b"x", "set/.GIT/hooks/post-checkout": b"x", "set/train/.git": b"gitdir: /tmp"}
    kept = {".gitattributes": b"x"}
    assert unpack(tmp_path, PACKERS[kind]((FILES | theirs | kept).items())) == FILES | kept


def test_names_are_stored_composed(tmp_path):
    assert unpack(tmp_path, zip_bytes([("cafe\u0301.png", b"x")])) == {"caf\u00e9.png": b"x"}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../outside", "leads out"),
        ("set/../../outside", "leads out"),
        ("set/..", "leads out"),
        ("/etc/outside", "absolute"),
        ("C:/outside", "drive letter"),
        ("c:outside", "drive letter"),
        ("..\\outside", "backslash"),
        ("a\x07b", "control character"),
        ("y" * 256, "too long"),
        ("d/" * 600 + "x", "too long"),
        ("d/" * 64 + "x", "deeper than 64 folders"),
    ],
)
def test_names_that_must_not_be_written(tmp_path, kind, name, why):
    message = refused(tmp_path, PACKERS[kind]([("good", b"1"), (name, b"x")]))
    assert why in message
    assert not list(tmp_path.parent.glob("outside"))


def test_a_nul_in_a_zip_name_does_not_hide_its_tail(tmp_path):
    data = zip_bytes([("good.jpgX../../evil", b"x")]).replace(b"good.jpgX", b"good.jpg\0")
    assert "control character" in refused(tmp_path, data)


@pytest.mark.parametrize(
    ("flag", "kind"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
        (tarfile.GNUTYPE_SPARSE, "sparse file"),
        (b"V", "member of unknown type 'V'"),
    ],
)
def test_tar_entries_that_are_no_plain_files(tmp_path, flag, kind):
    info = tarfile.TarInfo("set/odd")
    info.type, info.linkname = flag, "/etc/passwd"
    message = refused(tmp_path, tar_bytes([("good", b"1"), info]))
    assert f"'set/odd' is a {kind}" in message


def test_a_pax_sparse_file_is_refused(tmp_path):
    info = tarfile.TarInfo("holes")
    info.pax_headers = {"GNU.sparse.major": "1"}
    assert "sparse file" in refused(tmp_path, tar_bytes([info], format=tarfile.PAX_FORMAT))


@pytest.mark.parametrize(
    ("mode", "kind"), [(stat.S_IFLNK, "symbolic link"), (stat.S_IFIFO, "device or pipe"), (stat.S_IFCHR, "device")]
)
def test_zip_entries_that_are_no_plain_files(tmp_path, mode, kind):
    info = zipfile.ZipInfo("set/odd")
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    assert f"'set/odd' is a {kind}" in refused(tmp_path, zip_bytes([("good", b"1"), (info, b"/etc/passwd")]))


def test_an_encrypted_zip_is_refused(tmp_path):
    data = bytearray(zip_bytes([("secret", b"x")]))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "password-protected" in refused(tmp_path, bytes(data))


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["set/A.jpg", "set/a.jpg"], "ignores case"),
        (["Train/a.jpg", "train/b.jpg"], "ignores case"),
        (["\u00c9.jpg", "e\u0301.jpg"], "ignores case"),
        (["a.jpg", "./a.jpg"], "twice"),
        (["caf\u00e9.jpg", "cafe\u0301.jpg"], "twice"),
        (["a", "a/b"], "both a file and a folder"),
        (["a/b", "a"], "both a file and a folder"),
    ],
)
def test_names_that_collide(tmp_path, kind, names, why):
    assert why in refused(tmp_path, PACKERS[kind]([(name, b"x") for name in names]))


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "zip"])
def test_a_bomb_is_stopped_by_its_ratio(tmp_path, kind):
    message = refused(tmp_path, PACKERS[kind]([("zeros", bytes(9_000_000))]), max_ratio=50.0)
    assert "50 times" in message and "limits.unpack_ratio" in message


@pytest.mark.parametrize("kind", PACKERS)
def test_too_many_bytes_of_all_files_together(tmp_path, kind):
    data = PACKERS[kind]([(f"f{i}", b"x" * 600) for i in range(10)])
    assert "more than 5999 bytes" in refused(tmp_path, data, max_bytes=5999)


@pytest.mark.parametrize("kind", PACKERS)
def test_too_many_files(tmp_path, kind):
    data = PACKERS[kind]([(f"f{i}", b"x") for i in range(11)])
    assert "more than 10 files" in refused(tmp_path, data, max_files=10)
    assert len(unpack(tmp_path, data, max_files=11)) == 11


def test_too_many_folders_that_nobody_listed(tmp_path):
    assert "more than 100 files" in refused(
        tmp_path, tar_bytes([("/".join(f"{n}" + "a" * 50) + "/x", b"") for n in range(4)])
    )


@pytest.mark.parametrize("kind", PACKERS)
def test_what_is_cut_short_is_refused_wherever_it_is_cut(tmp_path, kind):
    data = PACKERS[kind](FILES.items())
    if kind == "tar":
        data = data[: data.index(b"set/test/c.jpg") + 512 + 512]  # without the padding of the last record
    for size in range(len(data) - 1, 0, -max(len(data) // 25, 1)):
        with pytest.raises(UserError, match=r"corrupt or cut short|is not an archive"):
            unpack(tmp_path, data[:size])
        assert not (tmp_path / "out").exists()


def test_a_tar_cut_between_two_files_is_refused(tmp_path):
    data = tar_bytes([("a", b"1"), ("b", b"2")])
    assert "ends in the middle" in refused(tmp_path, data[:1024])


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    data = bytearray(tar_bytes([("a", b"1"), ("b", b"2")]))
    data[1024] ^= 1
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
        assert tar.getnames() == ["a"]  # why its errors are raised again
    assert "checksum" in refused(tmp_path, bytes(data))


def test_two_tars_glued_together_are_refused(tmp_path):
    assert "after the end" in refused(tmp_path, tar_bytes([("a", b"1")]) + tar_bytes([("b", b"2")]))


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "zip"])
def test_changed_content_is_noticed_by_the_checksum(tmp_path, kind):
    random_bytes = random.Random(0).randbytes(5000)
    data = bytearray(PACKERS[kind]([("noise", random_bytes)]))
    data[len(data) // 2] ^= 0x10
    assert "corrupt or cut short" in refused(tmp_path, bytes(data))


@pytest.mark.parametrize("place", [-1, -8])  # length and checksum, which stand after the last file
def test_the_trailer_of_gzip_is_read(tmp_path, place):
    data = bytearray(PACKERS["tar.gz"](FILES.items()))
    data[place] ^= 1
    assert "corrupt or cut short" in refused(tmp_path, bytes(data))


@pytest.mark.parametrize("claim", [1, 3000])
def test_a_zip_that_lies_about_sizes_is_refused(tmp_path, claim):
    data = bytearray(zip_bytes([("a", b"abc" * 500)]))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, claim)
    assert "corrupt or cut short" in refused(tmp_path, bytes(data))


def test_a_zip_whose_members_overlap_is_refused(tmp_path):
    data = bytearray(zip_bytes([("aa", b"x" * 100), ("ab", b"x" * 100)], zipfile.ZIP_STORED))
    second = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 0)  # both point to the first one's bytes
    data[second + 46 : second + 48] = b"aa"
    assert "overlaps" in refused(tmp_path, bytes(data))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\n <!DOCTYPE html><html>404</html>", "is a web page"),
        (b"", "is an empty file"),
        (b"just text " * 100, "is not an archive"),
        (b"BZh91AY&SY", "is a bzip2 archive"),
        (b"Rar!\x1a\x07\x01\x00", "is a rar archive"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        (gzip.compress(b"not a tar" * 100, mtime=0), "corrupt or cut short"),
        (lzma.compress(b"not a tar" * 100), "corrupt or cut short"),
        (gzip.compress(b"", mtime=0), "corrupt or cut short"),
        (bytes(1024), "holds no files"),
        (zip_bytes([]), "holds no files"),
        (zip_bytes([("folder/", b"")]), "holds no files"),
        (tar_bytes([(".DS_Store", b"x")]), "holds no files"),
        (tar_bytes([("", b"x")]), "a file without a name"),
    ],
)
def test_what_is_no_archive_of_ours(tmp_path, data, why):
    assert why in refused(tmp_path, data)


def test_a_missing_archive(tmp_path):
    with pytest.raises(UserError, match="no such archive"):
        archives.unpack(tmp_path / "none.zip", tmp_path / "out", **LIMITS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", PACKERS)
def test_damage_anywhere_gives_one_line_or_the_same_files(tmp_path, kind):
    """Random damage: never a traceback of ours, never a file outside, never a half tree."""
    original = PACKERS[kind](FILES.items())
    generator = random.Random(kind)
    for _ in range(150 if THOROUGH else 40):
        data = bytearray(original)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        (tmp_path / "given").write_bytes(data)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        try:
            archives.unpack(tmp_path / "given", tmp_path / "out", **LIMITS)
        except UserError as error:
            assert "\n" not in str(error) and not (tmp_path / "out").exists()
        else:  # a plain tar has no checksum of what lies in it
            assert kind == "tar" or tree(tmp_path / "out") == FILES
        assert {path.name for path in tmp_path.iterdir()} <= {"given", "out"}


@pytest.mark.parametrize("kind", PACKERS)
def test_memory_does_not_grow_with_the_files(tmp_path, kind):
    options = {"mode": "w:xz", "preset": 2} if kind == "tar.xz" else None  # preset 6 has a window of 8 MiB
    members = [("big", random.Random(0).randbytes(1 << 20) * 8)]
    (tmp_path / "given").write_bytes(tar_bytes(members, **options) if options else PACKERS[kind](members))
    tracemalloc.start()
    try:
        archives.unpack(tmp_path / "given", tmp_path / "out", max_bytes=1 << 30, max_files=1, max_ratio=1e9)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out" / "big").stat().st_size == 8 << 20
    assert peak < 7 << 20


def test_a_giant_header_is_not_read_into_memory(tmp_path):
    info = tarfile.TarInfo("long")
    info.type, info.size = b"L", 1 << 32
    assert "a header of" in refused(tmp_path, info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))


# --- what is counted, and how


def pax(keyword: str, value: str) -> bytes:
    text = f" {keyword}={value}\n"
    length = len(text) + 1
    while len(f"{length}{text}") != length:
        length += 1
    return f"{length}{text}".encode()


def tar_header(flag: bytes, text: bytes, size: int | None = None) -> bytes:
    """Return a member of this type with this content, padded."""
    info = tarfile.TarInfo("header")
    info.type, info.size = flag, len(text) if size is None else size
    return info.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_folders_and_headers_count_as_bytes(tmp_path, compress):
    folders = b"".join(tar_header(b"5", b"") for _ in range(20_000))
    assert "limits.unpack_ratio" in refused(tmp_path, compress(folders + tar_bytes([("a", b"1")])))
    headers = b"".join(tar_header(b"x", pax("comment", "x" * 500_000)) + tar_header(b"5", b"") for _ in range(30))
    shutil.rmtree(tmp_path / "out")
    assert "limits.unpack_bytes" in refused(tmp_path, compress(headers + tar_bytes([("a", b"1")])), max_ratio=1e9)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_bomb_behind_the_end_of_the_tar_is_stopped(tmp_path, compress):
    assert "limits.unpack_ratio" in refused(tmp_path, compress(tar_bytes([("a", b"1")]) + bytes(50_000_000)))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip_bomb_is_stopped_before_it_is_in_memory(tmp_path, method):
    data = zip_bytes([("zeros", bytes(100_000_000))], method)
    tracemalloc.start()
    try:
        assert "limits.unpack_ratio" in refused(tmp_path, data, max_bytes=10**9)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_dictionary_of_xz_is_bounded(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 29}]
    packed = lzma.LZMACompressor(filters=filters)
    assert "emory" in refused(tmp_path, packed.compress(tar_bytes([("a", b"1")])) + packed.flush())


def test_memory_that_is_not_there_is_a_refusal(tmp_path, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(archives, "_write", no_memory)
    assert "memory" in refused(tmp_path, tar_bytes([("a", b"1")]))


@pytest.mark.parametrize("record", [pax("a", "b"), b"5 a=\n", b"1 a=" + b"b" * 1000])
def test_pax_headers_are_read_in_linear_time(tmp_path, record):
    """Ten times the bytes take about ten times as long; quadratic would be a hundred."""

    def took(size: int) -> float:
        long = (record * (size // len(record)))[:size]
        (tmp_path / "given").write_bytes(tar_header(b"x", long) + tar_bytes([("a", b"1")]))

        def unpack():
            with contextlib.suppress(UserError):
                archives.unpack(tmp_path / "given", tmp_path / "out", **LIMITS)

        return seconds(unpack)

    assert took(1_000_000) < max(0.2, 40 * took(100_000))


def test_global_headers_do_not_make_every_member_slow(tmp_path):
    comments = b"".join(tar_header(b"g", pax(f"k{i}", "v")) + tar_header(b"5", b"") for i in range(3000))
    files = tar_bytes([(f"f{i}", b"") for i in range(3000)])
    (tmp_path / "given").write_bytes(comments + files)
    limits = LIMITS | {"max_files": 10_000}
    assert seconds(lambda: archives.unpack(tmp_path / "given", tmp_path / "out", **limits)) < 8


@pytest.mark.parametrize("flag", [b"x", b"g", b"L"])
def test_endless_headers_are_refused_without_recursion(tmp_path, flag):
    text = b"name" if flag == b"L" else pax("comment", "x")
    assert "headers in a row" in refused(tmp_path, tar_header(flag, text) * 3000 + tar_bytes([("a", b"1")]))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tar_header(b"g", pax("path", "b")), "that of all members"),
        (tar_header(b"g", pax("size", "5")), "that of all members"),
        (tar_header(b"x", pax("size", "-5")), "no decimal number"),
        (tar_header(b"x", pax("size", "five")), "no decimal number"),
        (tar_header(b"x", b"99 path=b\n"), "cannot be read"),
        (tar_header(b"x", b"0 path=b\n"), "cannot be read"),
    ],
)
def test_pax_headers_that_lie(tmp_path, data, why):
    assert why in refused(tmp_path, data + tar_bytes([("a", b"1")]))


@pytest.mark.parametrize("flag", [b"x", b"L"])
def test_a_header_without_its_member(tmp_path, flag):
    data = tar_bytes([("a", b"1")])[:1024] + tar_header(flag, pax("path", "b")) + bytes(1024)
    assert "without its member" in refused(tmp_path, data)


def test_a_negative_size_is_refused(tmp_path):
    header = bytearray(tar_header(b"0", b""))
    header[124:136] = b"\xff" * 12
    assert "no size" in refused(tmp_path, tar_bytes([("a", b"1")])[:1024] + rechecked(header) + bytes(1024))


def test_hard_links_become_copies_that_count(tmp_path):
    link = tarfile.TarInfo("set/copy")
    link.type, link.linkname = tarfile.LNKTYPE, "./set/first"
    data = tar_bytes([("set/first", b"photo" * 100), link])
    assert unpack(tmp_path, data) == {"set/first": b"photo" * 100, "set/copy": b"photo" * 100}
    links = []
    for i in range(50):
        links.append(tarfile.TarInfo(f"l{i}"))
        links[-1].type, links[-1].linkname = tarfile.LNKTYPE, "big"
    message = refused_again(tmp_path, tar_bytes([("big", bytes(1_000_000)), *links]))
    assert "limits.unpack_bytes" in message


def refused_again(tmp_path: Path, data: bytes, **limits) -> str:
    shutil.rmtree(tmp_path / "out")
    return refused(tmp_path, data, **limits)


@pytest.mark.parametrize("target", ["later", "folder", "../outside", "/etc/passwd", "set", ""])
def test_hard_links_to_what_is_no_file_before_them(tmp_path, target):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.LNKTYPE, target
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    message = refused(tmp_path, tar_bytes([("set/a", b"1"), folder, link, ("later", b"2")]))
    assert "'link' is a hard link to" in message and "tar --hard-dereference" in message


def test_latin_1_names_of_a_tar_are_read(tmp_path):
    data = tar_bytes([("caf\udce9.png", b"x")], format=tarfile.GNU_FORMAT, errors="surrogateescape")
    assert unpack(tmp_path, data) == {"caf\u00e9.png": b"x"}


def test_times_of_gnu_incremental_archives_are_no_prefix(tmp_path):
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[345:357] = b"14000000000\0"
    assert unpack(tmp_path, rechecked(header) + bytes(1024)) == {"a": b""}


def windows_zip(*names: bytes, system: int = 0) -> bytes:
    """Pack names as they come, backslashes and unknown bytes too."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for i, name in enumerate(names):
            info = zipfile.ZipInfo(f"{i}".rjust(len(name), "_"))
            info.create_system, info.external_attr = system, 0
            packed.writestr(info, b"x")
    data = buffer.getvalue()
    for i, name in enumerate(names):
        data = data.replace(f"{i}".rjust(len(name), "_").encode(), name)
    return data


def test_zips_from_windows_are_read(tmp_path):
    data = windows_zip(b"set\\train\\1.png", b"set\\test\\1.png", b"set/mixed\\1.png")
    assert set(unpack(tmp_path, data)) == {"set/train/1.png", "set/test/1.png", "set/mixed/1.png"}
    shift_jis = ["\u8868/train/1.png", "\u8868/test\\1.png"]  # 0x95 0x5C: the second byte is a backslash
    data = windows_zip(*(name.encode("cp932") for name in shift_jis))
    assert set(unpack(tmp_path, data)) == {"\u8868/train/1.png", "\u8868/test/1.png"}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (b"..\\outside", "leads out"),
        (b"a\\..\\..\\outside", "leads out"),
        (b"\\outside", "absolute"),
        (b"C:\\outside", "drive"),
    ],
)
def test_backslashes_of_windows_do_not_lead_out(tmp_path, name, why):
    assert why in refused(tmp_path, windows_zip(b"good", name))


def test_names_that_become_one_by_their_separators(tmp_path):
    assert "twice" in refused(tmp_path, windows_zip(b"set\\1.png", b"set/1.png"))


@pytest.mark.parametrize(("method", "shown"), [(zipfile.ZIP_LZMA, "LZMA"), (99, "method 99"), (9, "Deflate64")])
def test_a_zip_by_another_method_names_it_and_the_mend(tmp_path, method, shown):
    data = bytearray(zip_bytes([("a", b"abc")], zipfile.ZIP_LZMA if method == zipfile.ZIP_LZMA else zipfile.ZIP_STORED))
    struct.pack_into("<H", data, 8, method)
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 10, method)
    message = refused(tmp_path, bytes(data))
    assert f"compressed by {shown}" in message and "deflate" in message


def test_bzip2_in_a_zip_is_read(tmp_path):
    assert unpack(tmp_path, zip_bytes(FILES.items(), zipfile.ZIP_BZIP2)) == FILES


def test_a_zip_that_was_written_as_a_stream_is_read(tmp_path):
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = b""

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in FILES.items():
            packed.writestr(name, data)
    assert unpack(tmp_path, pipe.data) == FILES


def test_a_zip64_is_read(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, data in FILES.items():
            with packed.open(zipfile.ZipInfo(name), "w", force_zip64=True) as stream:
                stream.write(data)
    assert unpack(tmp_path, buffer.getvalue()) == FILES


@pytest.mark.parametrize("kind", PACKERS)
def test_data_behind_the_end_is_refused(tmp_path, kind):
    assert "corrupt or cut short" in refused(tmp_path, PACKERS[kind](FILES.items()) + b"more")


def test_a_tar_that_lost_bytes_among_its_zeros_is_refused(tmp_path):
    """Without the header of its last, empty file, and not a whole number of blocks: the file would be missing."""
    data = PACKERS["tar"]([*FILES.items(), ("set/zz_empty", b"")])
    place = data.index(b"set/zz_empty")
    assert "no whole blocks" in refused(tmp_path, data[: place - 3] + data[place + 500 :])


def test_two_names_for_one_entry_of_a_zip_are_refused(tmp_path):
    data = bytearray(zip_bytes([("aa", b"1"), ("bb", b"2")]))
    data[data.rindex(b"bb")] = ord("c")
    assert "differs between the table of contents" in refused(tmp_path, bytes(data))


def test_bytes_between_the_entries_of_a_zip_are_refused(tmp_path):
    data = zip_bytes([("aa", b"1"), ("bb", b"2")], zipfile.ZIP_STORED)
    table = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", table + 4)
    without = bytearray(data[:second] + data[data.index(b"PK\x05\x06") :])  # the second entry is not listed
    end = without.index(b"PK\x05\x06")
    struct.pack_into("<HHI", without, end + 8, 1, 1, second - table)
    assert "does not count" in refused(tmp_path, bytes(without))


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_no_flipped_bit_loses_or_changes_a_file(tmp_path, kind):
    """What is refused is refused; what is read has every file, with its bytes and under some name."""
    original = PACKERS[kind]((FILES | {"set/more.txt": b"text" * 30}).items())
    contents = sorted((FILES | {"set/more.txt": b"text" * 30}).values())
    generator = random.Random(kind)
    bits, flips = 8 * len(original), 700 if THOROUGH else 120
    # One in each of as many parts of equal length: no header is left out.
    for bit in (generator.randrange(bits * part // flips, bits * (part + 1) // flips) for part in range(flips)):
        data = bytearray(original)
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / "given").write_bytes(data)
        try:
            archives.unpack(tmp_path / "given", tmp_path / "out", **LIMITS)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert sorted(tree(tmp_path / "out").values()) == contents, bit


# --- the real thing


@pytest.mark.parametrize(("name", "count"), [("facades.tar.gz", 506), ("facades.zip", 1012), ("bsds500.zip", 120)])
def test_real_archives(tmp_path, name, count):
    limits = {"max_bytes": 10**9, "max_files": 2000, "max_ratio": 5.0}
    assert archives.unpack(real_data(f"data/{name}"), tmp_path / "out", **limits) == count
    assert all(path.read_bytes()[:2] == b"\xff\xd8" for path in (tmp_path / "out").rglob("*.jpg"))
