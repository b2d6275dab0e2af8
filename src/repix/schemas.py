"""The records that outlive a run: each with a version, one writer and one reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator

from repix.cells import NAME, CellName
from repix.directions import Direction
from repix.errors import UserError
from repix.files import parse_json, write_json

RANGES = {"uint8": (0, 255), "uint16": (0, 65535), "int16": (-32768, 32767)}
"""What images are stored as -> its least and greatest value."""

COLOURS = ("rgb", "gray", "lab_l", "lab_ab", "raw")
"""How the channels of a side become a picture."""


class Record(BaseModel):
    """A versioned JSON record; ``SCHEMA`` is ``repix.<name>/<version>``.

    ``MADE_BY`` is the command that writes it, and ``IN_GIT`` whether git holds it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    SCHEMA: ClassVar[str]
    MADE_BY: ClassVar[str] = "`dvc repro`"
    IN_GIT: ClassVar[bool] = False

    def write(self, path: str | Path) -> None:
        """Write the record with its schema line, atomically, keys sorted."""
        write_json(path, {"schema": self.SCHEMA} | self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read and check a record.

        Raises:
            UserError: no such file, not JSON, another schema, or fields that do not fit.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; {cls.MADE_BY} makes it") from None
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: cannot be read as JSON ({error}); {cls._mend()}") from None
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, path: str | Path) -> Self:
        """Return the record that a text holds; ``path`` is where it was found.

        Raises:
            UserError: not JSON, another schema, or fields that do not fit.
        """
        try:
            tree = parse_json(text)
        except ValueError as error:
            raise UserError(f"{path}: cannot be read as JSON ({error}); {cls._mend()}") from None
        found = tree.pop("schema", None) if isinstance(tree, dict) else None
        if found != cls.SCHEMA:
            raise UserError(f"{path}: schema is {found!r}, this version reads {cls.SCHEMA!r}; {cls._mend()}")
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            said = [".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")]
            raise UserError(f"{path}: {': '.join(filter(None, said))}; {cls._mend()}") from None

    @classmethod
    def _mend(cls) -> str:
        anew = f"{cls.MADE_BY} makes it anew"
        return f"`git checkout HEAD -- FILE` brings back the committed one, {anew}" if cls.IN_GIT else anew


def _check_directions(translators: Mapping[str, Any]) -> None:
    for name in translators:
        if name not in list(Direction):
            raise ValueError(f"{name!r} is no direction of translation; those are {', '.join(Direction)}")


def _check_names(networks: Iterable[str]) -> None:
    """Refuse names that would lead out of the folders that are named after them."""
    for name in networks:
        if not NAME.match(name):
            raise ValueError(f"{name!a} is no name of a network")


def _is_file_name(text: str) -> str:
    """Refuse what names nothing in a folder, or something outside of it, which no digest of the folder covers."""
    if text in ("", ".", "..") or PurePath(text).name != text or "\0" in text:
        raise ValueError(f"{text!a} is no name of a file")
    return text


FileName = Annotated[str, AfterValidator(_is_file_name)]


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise ValueError(f"crop_size {size} is no size of an image")


class Archive(Record):
    """What ``download`` left: ``data/raw/<dataset>/archive.json``.

    ``pinned`` says whether params.yaml named this sha256 beforehand or it was only recorded.
    """

    SCHEMA = "repix.archive/1"
    dataset: str
    file: FileName
    bytes: int
    sha256: str
    pinned: bool


class Kept(Record):
    """What ``unpack`` left in place of a tree: an archive, and the limits that whoever unpacks it has to keep.

    Attributes:
        file: the archive, beside the record.
        max_bytes, max_files, max_ratio: see :func:`repix.data.archives.unpack`.
    """

    SCHEMA = "repix.kept/1"
    file: FileName
    max_bytes: int
    max_files: int
    max_ratio: float


class Side(BaseModel):
    """What the numbers of one side (source or target) mean.

    Attributes:
        channels: number of channels.
        dtype: ``uint8``, ``uint16`` or ``int16``.
        low, high: per channel, the stored integers that stand for -1 and +1.
        meaning: per channel, what it is: R G B, gray, L a b, or c0 c1 ...
        colour: rgb, gray, lab_l, lab_ab or raw: how to turn it into a picture.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    channels: int
    dtype: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    meaning: tuple[str, ...]
    colour: str

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse a side whose numbers mean nothing: a record that a stranger has edited."""
        if self.dtype not in RANGES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(RANGES)}")
        if self.colour not in COLOURS:
            raise ValueError(f"colour {self.colour!r} is not one of {', '.join(COLOURS)}")
        if not self.channels == len(self.low) == len(self.high) == len(self.meaning) > 0:
            raise ValueError(f"{self.channels} channels with other numbers of low, high and meaning")
        least, greatest = RANGES[self.dtype]
        for low, high in zip(self.low, self.high, strict=True):
            if not least <= low < high <= greatest:
                raise ValueError(f"low {low} and high {high} are no range of {self.dtype}")
        return self


class Example(BaseModel):
    """One stored image of one side: where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: FileName  # files are called after it
    file: str
    sha256: str
    size: tuple[int, int]  # height, width in the file


class Shard(BaseModel):
    """One array of a side of a split: ``file`` is (n, height, width, channels), C order, .npy."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: FileName
    n: int
    sha256: str


class Half(BaseModel):
    """One side of a split: the arrays that hold it, one after the other, and where its images came from.

    Attributes:
        n: number of images, of all shards together.
        size: height and width.
        shards: in the order of the rows.
        examples: the file with a line of JSON for each row, see :class:`Example`: beside the manifest, so that
            nobody has to read a million of them to open the arrays.
        examples_sha256: of that file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    n: int
    size: tuple[int, int]
    shards: tuple[Shard, ...]
    examples: FileName
    examples_sha256: str

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if not self.shards or sum(shard.n for shard in self.shards) != self.n:
            counts = ", ".join(str(shard.n) for shard in self.shards) or "none"
            raise ValueError(f"{self.n} images, and its shards have {counts}")
        return self


class Split(BaseModel):
    """The two sides of a split; in a paired set row i of both belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: Half
    target: Half


class Skipped(BaseModel):
    """An image that ``on_error: skip`` left out, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str
    reason: str


class Manifest(Record):
    """What ``preprocess`` left: ``data/prepared/<dataset>/manifest.json``."""

    SCHEMA = "repix.manifest/2"
    dataset: str
    paired: bool
    direction: Literal["AtoB", "BtoA"]
    resize: str
    resample: str
    load_size: tuple[int, int]
    crop_size: tuple[int, int]
    source: Side
    target: Side
    splits: dict[str, Split]
    skipped: tuple[Skipped, ...] = ()


_TEXTS = ("profile", "split")  # of a protocol; all else in it are groups


def _is_protocol(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name not in _TEXTS and not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r}, expected a group of what it was measured by")
    return given


# Read as they stand: "0.5" and true are no scores, and a protocol that cannot be compared is none.
Scores = dict[str, dict[str, dict[str, Annotated[float, Field(strict=True)] | None] | None]]
Protocol = Annotated[dict[str, Any], AfterValidator(_is_protocol)]
T = TypeVar("T")


def flat(scores: Mapping[str, Mapping[str, Mapping[str, T] | None]]) -> dict[tuple[str, str, str], T]:
    """Return (translator, variant, metric) -> what ``scores`` have of it, sorted; a score that is null stays so."""
    return {
        (translator, variant, metric): value
        for translator, variants in sorted(scores.items())
        for variant, found in sorted(variants.items())
        for metric, value in sorted((found or {}).items())
    }


class Metrics(Record):
    """What ``evaluate`` left in git: ``metrics/<cell>.json``.

    ``weights_digest`` names the last weights by network, and averages by ``ema/<network>``.
    ``scores[translator][variant][metric]`` is a number, or null with the reason in
    ``protocol[metric]["reason"]``; variants are ``last``, ``best``, ``ema`` where the recipe keeps
    an average, and, where asked for, ``last_paper``, ``best_paper`` and ``ema_paper``.
    """

    SCHEMA = "repix.metrics/1"
    IN_GIT = True
    cell: CellName
    weights_digest: dict[str, str]
    n: int
    scores: Scores
    protocol: Protocol

    def images(self, translator: str) -> int:
        """Return how many images a translator was scored on: the way back of an unpaired set has its own number."""
        return self.protocol.get("images", {}).get(translator, {}).get("n", self.n)

    def weights(self, variant: str) -> dict[str, str]:
        """Return the digests of the weights that were scored as ``last`` or ``ema``, network -> digest.

        Empty for a variant whose digests the record does not hold.
        """
        prefix = {"last": "", "ema": "ema/"}.get(variant)
        if prefix is None:
            return {}
        named = {name: digest for name, digest in self.weights_digest.items() if name.startswith(prefix)}
        return {name.removeprefix(prefix): digest for name, digest in named.items() if "/" not in name[len(prefix) :]}


class Start(Record):
    """What ``start`` left: ``starts/<cell>/start.json``, where the cell's training starts.

    Attributes:
        parent: name of the cell that it starts from, or the file as params.yaml names it; null for first weights.
        weights: which weights were taken: ``last``, ``best`` or ``ema``; null of a file.
        files: name in the folder -> sha256, of what was taken over.
        crop_size: (height, width) that the parent was trained at; null of a file.
        channels: of its source and its target; null of a file.
        epochs: those that the parent has done; null of a file.
        trained_by: what the parent's training followed from, by its lineage record, where its schedule is continued.
    """

    SCHEMA = "repix.start/1"
    cell: CellName
    parent: str | None = None
    weights: str | None = None
    files: dict[str, str] = {}
    crop_size: tuple[int, int] | None = None
    channels: tuple[int, int] | None = None
    epochs: int | None = None
    trained_by: dict[str, Any] = {}

    def told(self) -> dict[str, Any] | None:
        """Return what the record of a training says of its parent; None where it had none."""
        names = ("parent", "weights", "files", "epochs")
        return None if self.parent is None else {name: getattr(self, name) for name in names}


class Trained(Record):
    """What ``train`` left: ``runs/<cell>/trained.json``, all that it takes to load the networks.

    Attributes:
        recipe: the model's entry in params.yaml, complete with defaults.
        translators: name -> generator network (``source_to_target`` -> ``generator``).
        networks: network -> canonical digest of its last weights.
        best: epoch that scored best on val, its score and digests; null without a val split.
        ema: decay and digests of the average of the generators' weights; null where none was kept.
        direction: which half of a side-by-side image is the source: AtoB (left) or BtoA.
        start: what it started from: see :meth:`Start.told`; not there where it started from first weights.
    """

    SCHEMA = "repix.trained/2"
    cell: CellName
    dataset: str
    model: str
    seed: int
    steps: int
    epochs: int
    profile: dict[str, Any]
    recipe: dict[str, Any]
    crop_size: tuple[int, int]
    source: Side
    target: Side
    translators: dict[str, str]
    networks: dict[str, str]
    best: dict[str, Any] | None
    data_digest: str
    direction: Literal["AtoB", "BtoA"]
    ema: dict[str, Any] | None = None
    start: dict[str, Any] | None = None

    @model_serializer(mode="wrap")
    def _without_no_parent(self, dump):
        return {name: value for name, value in dump(self).items() if name != "start" or value is not None}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse what could not be loaded: a record that a stranger has edited."""
        _check_names([*self.networks, *self.translators.values()])
        _check_directions(self.translators)
        _check_size(self.crop_size)
        if not isinstance(self.profile.get("name"), str):
            raise ValueError("profile has no name")
        for variant, kept in (("best", self.best), ("ema", self.ema)):
            if kept is not None and not isinstance(kept.get("networks"), dict):
                raise ValueError(f"{variant} names no networks")
            _check_names(map(str, kept["networks"] if kept is not None else ()))
        for variant, networks in self.variants().items():
            for network in self.translators.values():
                if network not in networks:
                    raise ValueError(f"{variant} has no digest of {network!r}, which translates")
        return self

    @property
    def shown(self) -> str:
        """The variant that pictures show and exports take unless asked otherwise: ``ema``, or ``last`` without one."""
        return "ema" if self.ema else "last"

    def variants(self) -> dict[str, dict[str, str]]:
        """Return the sets of weights that there are: ``last``, ``best``, ``ema`` -> network -> digest."""
        found = {"last": self.networks}
        for name, kept in (("best", self.best), ("ema", self.ema)):
            if kept:
                found[name] = kept["networks"]
        return found


class Exported(Record):
    """What ``export`` left: ``exports/<cell>/export.json``, all that it takes to use the files.

    Attributes:
        variant: which weights were exported.
        weights: network -> canonical digest of its weights.
        bytes: translator -> format -> size.
        digests: translator -> format -> sha256 of the file, or of the tree.
        tolerance: format -> ``max`` and ``mean``, the bounds on the difference to the
            trained network on the [-1, 1] scale.
        parity: ``pass``: every format was loaded back and stayed within its tolerance.
        direction: as in :class:`Trained`.
    """

    SCHEMA = "repix.export/3"
    cell: CellName
    variant: str
    crop_size: tuple[int, int]
    source: Side
    target: Side
    weights: dict[str, str]
    bytes: dict[str, dict[str, int]]
    digests: dict[str, dict[str, str]]
    tolerance: dict[str, dict[str, float]]
    parity: str
    direction: Literal["AtoB", "BtoA"]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse what could not be loaded: a record that a stranger has edited."""
        _check_names(self.weights)
        _check_directions(self.digests)
        _check_size(self.crop_size)
        return self
