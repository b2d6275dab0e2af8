"""Do the metrics say what they should? Agreement with others' code, and real façades.

    python -m checks.agreement [--agreement] [--facades] [--evaluate] [--protocol] [--trained DIR] [--write] [--json F]

--agreement (what runs without any of the four): FID against pytorch-fid's own result on the
same folders, its own network builder and reader included, with only the download of weights
replaced by a file; known Gaussians; KID, SSIM, PSNR against scikit-learn and scikit-image; SWD
against a slow plain version; independence from batches and workers.
--facades: distances and SSIM of real, blurred, trained and untrained façades, and whether they
come in the order that they must. The generator is --trained, a folder runs/<cell> of a model on
`facades`; without it one is trained for --epochs by the train stage.
--evaluate: the evaluate stage on its 106 test images: seconds and peak memory.
--protocol: the definition of each metric, as the code has it; takes no data.

The others take the façades (--archive) and Inception up to Mixed_6e (--weights), prepared by the stage
scripts in .repix/benchmarks. Ends with 1 if any row is not as it must be. --write puts the tables into
docs/metrics.md, that of --protocol included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from checks.harness import ROOT, Ran, run_stage, table, write
from repix import paths, profile
from repix.errors import UserError

PAGE = ROOT / "docs" / "metrics.md"
SHARED = Path(os.environ.get("REPIX_REAL_DATA", ROOT.parent / "shared"))
FEATURE_DIMS = 768  # the last layer of the weights that are at hand
SIGMAS = (1.0, 2.0, 4.0, 8.0)  # of the blur, in pixels
CELL = ("facades", "pix2pix", "0")


def main() -> int:
    """Run what is asked for; return 0 if every row is as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in ("agreement", "facades", "evaluate", "protocol"):
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--trained", type=Path, metavar="DIR", help="runs/<cell> of a model on facades")
    parser.add_argument("--epochs", type=int, default=1, help="to train for where there is no --trained")
    parser.add_argument("--archive", type=Path, default=SHARED / "data" / "facades.tar.gz", metavar="FILE")
    weights = SHARED / "inception" / "pt_inception-2015-12-05-to-mixed6e.pth"
    parser.add_argument("--weights", type=Path, default=weights, metavar="FILE")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/metrics.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    arguments = parser.parse_args()
    parts = [part for part in ("agreement", "facades", "evaluate") if getattr(arguments, part)]
    if arguments.protocol and not parts:
        print(protocol_table())
        if arguments.write:
            write("metrics", "protocol", protocol_table())
        return 0
    parts = parts or ["agreement"]
    for path in (arguments.archive, arguments.weights, *([arguments.trained] if arguments.trained else [])):
        if not path.exists():
            raise UserError(f"{path}: no such file; see --help for what to give")
    profile.enter("fast")  # what facades are trained and evaluated under

    workspace = Workspace(arguments)
    figures: dict[str, Any] = {"profile": profile.current().record(), "versions": versions()}
    wrong = 0
    for part in parts:
        found = {"agreement": agreement, "facades": facades, "evaluate": evaluate}[part](workspace)
        figures[part] = found
        keys, head = zip(*found["columns"], strict=True)
        shown = table(head, ([row.get(key) for key in keys] for row in found["rows"]))
        if found.get("note"):
            shown += f"\n\n{found['note']}"
        print(f"{shown}\n", flush=True)
        wrong += sum(row.get("ok") is False for row in found["rows"])
        if arguments.write:
            write("metrics", part, shown)
    if arguments.write:
        write("metrics", "protocol", protocol_table())
    if arguments.json:
        from repix.files import write_json

        write_json(arguments.json, figures)
    print(f"{wrong} rows are not as they must be" if wrong else "every row is as it must be")
    return 1 if wrong else 0


def versions() -> dict[str, str]:
    """Return what the figures were measured with."""
    from importlib.metadata import version

    names = ("numpy", "scipy", "scikit-image", "scikit-learn", "torch", "torchvision", "pytorch-fid", "tensorflow")
    return {name: version(name) for name in names}


class Workspace:
    """A folder in which the stage scripts run on the façades, beside the pipeline.

    Args:
        arguments: ``archive``, ``weights``, ``trained`` and ``epochs``.
    """

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.folder = (paths.WORK / "benchmarks" / "facades").resolve()
        self._prepared: dict[str, Any] = {}

    def configure(self, **evaluate: Any) -> None:
        """Write params.yaml: the repository's, with the files at hand and these metrics."""
        import yaml

        from repix.config import reader
        from repix.files import digest_file, write_text

        tree = reader.load(ROOT / reader.FILE)
        tree["run"] |= {"datasets": ["facades"], "models": ["pix2pix"], "seeds": [0], "profile": "fast"}
        archive, weights = self.arguments.archive.resolve(), self.arguments.weights.resolve()
        tree["datasets"]["facades"]["archive"] |= {"urls": [archive.as_uri()], "sha256": digest_file(archive)}
        tree["models"]["pix2pix"] |= {"epochs": self.arguments.epochs, "decay_epochs": 0}
        tree["features"] = {"mixed_6e": {"urls": [weights.as_uri()], "sha256": digest_file(weights)}}
        asked = {"fid": True, "kid": True, "features": "mixed_6e", "dims": [FEATURE_DIMS]}
        tree["evaluate"] |= asked | evaluate
        write_text(self.folder / reader.FILE, yaml.safe_dump(tree, sort_keys=False))

    def run(self, name: str, *names: str) -> Ran:
        """Run a stage's script here; return what it took."""
        print(f"{name} ...", file=sys.stderr, flush=True)
        return run_stage(self.folder, name, *names)

    def prepared(self):
        """Return the façades as the pipeline prepares them."""
        if "facades" not in self._prepared:
            from repix.data.prepared import Prepared

            self.configure()
            for name in ("download", "unpack", "preprocess"):
                self.run(name, "facades")
            self._prepared["facades"] = Prepared.open(self.folder / paths.PREPARED / "facades")
        return self._prepared["facades"]

    def photos(self):
        """Return (106 train photos, 106 test photos), (n, 256, 256, 3) uint8, neither enlarged nor cropped.

        The pipeline keeps train photos enlarged, to be cropped: here they are as their files have them.
        """
        import numpy as np

        from repix.data.images import decode

        test = self.prepared().split("test")
        n, (height, width) = len(test.target), test.target.shape[1:3]
        files = sorted((self.folder / paths.IMAGES / "facades").rglob("train/*.jpg"), key=lambda path: int(path.stem))
        chosen = sorted(np.argsort([hash_of(path.stem) for path in files], kind="stable")[:n].tolist())
        train = np.stack([decode(files[i]).pixels[:, :width] for i in chosen])
        if train.shape != (n, height, width, 3):
            raise UserError(f"{self.arguments.archive}: its photos are {train.shape[1:3]}, expected {height} x {width}")
        return train, np.asarray(test.target)

    def network(self):
        """Return Inception with the weights at hand."""
        from repix.evaluation.features import load_network
        from repix.files import digest_file

        return load_network((FEATURE_DIMS,), self.arguments.weights, digest_file(self.arguments.weights))

    def trained(self) -> Path:
        """Return the folder of a trained cell; trains one where none was given."""
        folder = self.folder / paths.RUNS / "-".join(CELL)
        if self.arguments.trained:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.is_symlink():
                folder.unlink()
            elif folder.exists():
                raise UserError(f"{folder}: a generator trained here is in the way; move it or leave out --trained")
            folder.symlink_to(self.arguments.trained.resolve(), target_is_directory=True)
        elif folder.is_symlink() or not folder.exists():
            folder.unlink(missing_ok=True)
            self.prepared()
            self.run("train", *CELL)
        return folder


def hash_of(name: str) -> str:
    """Return what photos are chosen by: neither their order nor their number plays a part."""
    from repix.files import digest_text

    return digest_text(name)


# --- agreement ---------------------------------------------------------------------------------


def agreement(workspace: Workspace) -> dict[str, Any]:
    """Return the table of our numbers beside others' on the same images."""
    train, test = workspace.photos()
    rows = [*worked_cases(), *on_photos(train, test, workspace)]
    return {
        "columns": [
            ("case", "case"),
            ("reference", "reference"),
            ("ours", "repix"),
            ("theirs", "reference says"),
            ("error", "difference"),
            ("kind", ""),
            ("bound", "allowed"),
            ("ok", "ok"),
        ],
        "rows": rows,
        "n": {"train": len(train), "test": len(test)},
    }


def row(case: str, reference: str, ours: float, theirs: float, bound: float, kind: str = "relative") -> dict:
    """Return a row of the agreement table; ``kind`` of the difference is relative, absolute or ``bytes``."""
    error = abs(ours - theirs) / (abs(theirs) if kind == "relative" else 1.0)
    return {
        "case": case,
        "reference": reference,
        "ours": float(ours),
        "theirs": float(theirs),
        "error": float(error),
        "kind": kind,
        "bound": bound,
        "ok": bool(error <= bound),
    }


def worked_cases() -> list[dict]:
    """Return the rows that need neither photos nor weights: cases with a known answer."""
    import numpy as np

    from checks.support.references import plain_kid, plain_swd
    from repix.evaluation.frechet import Statistics, frechet_distance
    from repix.evaluation.metrics.kid import kid
    from repix.evaluation.metrics.swd import swd

    rng = np.random.default_rng(0)
    one, two = Statistics.from_covariance(1.0, 4.0), Statistics.from_covariance(4.0, 25.0)
    rows = [
        row("Fréchet, N(1, 4) and N(4, 25)", "3² + (5 - 2)²", frechet_distance(one, two), 18.0, 1e-12),
    ]
    dims = 512
    m1, m2, s1, s2 = rng.uniform(0, 4, (4, dims))
    s1[: dims // 2] = 0.0  # singular, as covariances of few images are
    turn = np.linalg.qr(rng.normal(size=(dims, dims)))[0]
    ours = frechet_distance(
        Statistics.from_covariance(m1, turn * s1 @ turn.T), Statistics.from_covariance(m2, turn * s2 @ turn.T)
    )
    theirs = np.square(m1 - m2).sum() + np.square(np.sqrt(s1) - np.sqrt(s2)).sum()
    rows.append(row(f"Fréchet, {dims} dims, turned, one singular", "closed form, commuting", ours, theirs, 1e-8))
    features = rng.normal(size=(106, 2048))
    same = Statistics.from_features(features)
    ours = frechet_distance(same, same) / float(np.square(same.factor).sum())
    rows.append(row("Fréchet, a set with itself, over its variance", "0", ours, 0.0, 1e-12, "absolute"))
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    rows.append(row("KID, {0, 1} and {1, 2}", "by hand: 1 + 27 - 37/2", kid(a, b), 9.5, 1e-15))
    a, b = rng.normal(0, 1, (40, 16)), rng.normal(0.5, 1, (31, 16))
    rows.append(row("KID, 40 and 31 features of 16 dims", "pair by pair", kid(a, b), plain_kid(a, b), 1e-12))
    a, b = (rng.integers(0, 256, (2, 33, 35, 2)).astype(np.uint8) for _ in range(2))
    b = b // 2 + np.arange(35, dtype=np.uint8)[:, None]
    rows.append(row("SWD, 33 x 35, two levels", "patch by patch", swd(a, b)["mean"], plain_swd(a, b)[0], 1e-9))
    return rows


def on_photos(train, test, workspace: Workspace) -> list[dict]:
    """Return the rows on real photos: scikit-image, scikit-learn, pytorch-fid, batches and workers."""
    import numpy as np
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    from repix.evaluation.features import extract
    from repix.evaluation.frechet import Statistics, frechet_distance
    from repix.evaluation.metrics.kid import kid
    from repix.evaluation.metrics.psnr import psnr
    from repix.evaluation.metrics.ssim import ssim

    output, target = blurred(test, 2.0), test
    low, high = (0,) * 3, (255,) * 3
    pairs = list(zip(target, output, strict=True))
    options = {"channel_axis": -1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = {
        "PSNR": [peak_signal_noise_ratio(t, o, data_range=255) for t, o in pairs],
        "SSIM": [structural_similarity(t, o, data_range=255, **options) for t, o in pairs],
    }
    n = len(test)
    rows = []
    for name, metric in (("PSNR", psnr), ("SSIM", ssim)):
        ours = metric(output, target, low, high)
        worst = float(np.abs(ours - theirs[name]).max())
        title = f"{name}, {n} blurred photos, the worst of them"
        rows.append(row(title, "scikit-image", ours.mean(), np.mean(theirs[name]), 1e-10, "absolute"))
        rows[-1] |= {"error": worst, "ok": worst <= 1e-10}

    network = workspace.network()
    features = [extract(images, network)[FEATURE_DIMS] for images in (train, test)]
    case = f"KID-{FEATURE_DIMS}, {n} train and {n} test photos"
    rows.append(
        row(case, "Binkowski's estimator on scikit-learn's kernel", kid(*features), published_kid(*features), 1e-10)
    )

    with tempfile.TemporaryDirectory() as scratch:
        folders = [save(Path(scratch) / name, images) for name, images in (("train", train), ("test", test))]
        state = Path(scratch) / "random.pth"
        random_weights(state)
        for dims, weights, name in (
            (FEATURE_DIMS, workspace.arguments.weights, "trained weights"),
            (2048, state, "random weights"),
        ):
            print(f"pytorch-fid at {dims} dims ...", file=sys.stderr, flush=True)
            found = features if dims == FEATURE_DIMS else features_of((train, test), weights, dims)
            ours = frechet_distance(*map(Statistics.from_features, found))
            case = f"FID-{dims}, {name}, {n} and {n} photos"
            rows.append(row(case, "pytorch-fid on the same folders", ours, their_fid(folders, weights, dims), 1e-4))
            rows.append(row(case, "eigenvalues, as many as there can be", ours, fid_by_eigenvalues(*found), 1e-6))
    return [*rows, *independence(train, network, features[0], workspace)]


def blurred(images, sigma: float):
    """Return uint8 images (n, h, w, c) under a Gaussian of ``sigma`` pixels."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    return np.rint(gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0))).astype(np.uint8)


def published_kid(a, b) -> float:
    """Return the unbiased estimate of Binkowski et al. 2018 (equation 4) on scikit-learn's kernel."""
    from sklearn.metrics.pairwise import polynomial_kernel

    a, b = a.astype(float), b.astype(float)

    def kernel(x, y):
        return polynomial_kernel(x, y, degree=3, gamma=None, coef0=1)

    within = []
    for x in (a, b):
        k = kernel(x, x)
        within.append((k.sum() - k.trace()) / (len(x) * (len(x) - 1)))
    return sum(within) - 2 * kernel(a, b).mean()


def save(folder: Path, images) -> str:
    """Write images as PNG; return the folder."""
    from PIL import Image

    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:04d}.png")
    return str(folder)


def random_weights(path: Path) -> None:
    """Write a state dict of the whole network with seeded random kernels (He et al. 2015)."""
    import torch

    from repix.evaluation.features import _inception

    network = _inception()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.normal_(0.0, (2.0 / parameter[0].numel()) ** 0.5, generator=generator)
    torch.save(network.state_dict(), path)


def features_of(sets, weights: Path, dims: int) -> list:
    """Return repix's features of sets of photos."""
    from repix.evaluation.features import extract, load_network
    from repix.files import digest_file

    network = load_network((dims,), weights, digest_file(weights))
    return [extract(images, network)[dims] for images in sets]


def fid_by_eigenvalues(a, b) -> float:
    """Return the distance with the trace of sqrt(S1 S2) from the eigenvalues of sqrt(S1) S2 sqrt(S1).

    Of n images at most n - 1 of S1's are not zero. What sqrtm makes of the rounding of the others
    is the larger part of its error, since a square root turns 1e-16 into 1e-8.
    """
    import numpy as np

    a, b = a.astype(float), b.astype(float)
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    rank = min(len(a) - 1, a.shape[1])
    values, vectors = np.linalg.eigh(one)
    root = vectors[:, -rank:] * np.sqrt(values[-rank:])
    shared = np.sqrt(np.linalg.eigvalsh(root.T @ two @ root).clip(min=0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(one) + np.trace(two) - 2 * shared)


def their_fid(folders: list[str], weights: Path, dims: int) -> float:
    """Return what ``python -m pytorch_fid`` returns, its download of weights replaced by a file.

    The file may end before the last layers: those are then as they were made, and play no part.
    """
    import warnings

    import torch

    from repix.evaluation.features import _inception, import_pytorch_fid

    inception = import_pytorch_fid()
    from pytorch_fid.fid_score import calculate_fid_given_paths

    state = _inception().state_dict() | torch.load(weights, map_location="cpu", weights_only=True)
    fetch, inception.load_state_dict_from_url = inception.load_state_dict_from_url, lambda *_, **__: state
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy says that the product is singular: it is, with n < dims
            return float(calculate_fid_given_paths(folders, 8, "cpu", dims, num_workers=0))
    finally:
        inception.load_state_dict_from_url = fetch


def independence(train, network, known, workspace: Workspace) -> list[dict]:
    """Return how many bytes depend on batch sizes and workers: none may."""
    import shutil

    import numpy as np

    from repix.config import reader
    from repix.config.images import Images
    from repix.data import preprocess
    from repix.evaluation.features import extract
    from repix.evaluation.frechet import Statistics

    def unequal(arrays) -> int:
        first, *others = (np.ascontiguousarray(array).view(np.uint8) for array in arrays)
        return sum(int((other != first).sum()) for other in others)

    part = train[:13]
    batches = [extract(part, network, batch_size=size)[FEATURE_DIMS] for size in (1, 5, 8)]
    parts = [
        Statistics.from_batches(known[i : i + size] for i in range(0, len(known), size)) for size in (1, 7, len(known))
    ]
    counts = {
        f"bytes of {len(part)} features in batches of 1, 5, 8": unequal([*batches, known[: len(part)]]),
        f"bytes of mean and covariance in batches of 1, 7, {len(known)}": unequal([p.mean for p in parts])
        + unequal([p.factor for p in parts]),
    }
    wanted = reader.read("datasets.facades.images", Images, ROOT / reader.FILE)
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "images"
        for split in ("train", "test"):
            (tree / split).mkdir(parents=True)
            source = workspace.folder / paths.IMAGES / "facades"
            for path in sorted(source.rglob(f"{split}/*.jpg"))[:12]:
                shutil.copy(path, tree / split)
        folders = [Path(scratch) / f"prepared{workers}" for workers in (1, 2, 8)]
        for workers, folder in zip((1, 2, 8), folders, strict=True):
            preprocess.prepare(tree, wanted, folder, name="facades", workers=workers)
        arrays = [
            np.concatenate([np.frombuffer(path.read_bytes(), np.uint8) for path in sorted(folder.iterdir())])
            for folder in folders
        ]
        counts["bytes of 24 prepared pairs with 1, 2, 8 workers"] = unequal(arrays)
    return [row(case, "each other", count, 0, 0, "unequal bytes") for case, count in counts.items()]


# --- façades -----------------------------------------------------------------------------------


def facades(workspace: Workspace) -> dict[str, Any]:
    """Return scores of real, blurred, trained and untrained façades against the real test photos."""
    import numpy as np

    from repix.libraries import import_keras

    import_keras()
    from repix.cells import Cell
    from repix.config import reader
    from repix.config.augment import Augment
    from repix.config.evaluation import Evaluate
    from repix.evaluation.score import score_paired_and_distribution
    from repix.inference.trained import TrainedModel
    from repix.studies.margins import untrained

    train, test = workspace.photos()
    prepared, model = workspace.prepared(), TrainedModel(workspace.trained())
    sides = [(record.crop_size, record.source, record.target) for record in (prepared.manifest, model.record)]
    if sides[0] != sides[1]:
        raise UserError(f"{model.folder}: was trained on other sizes, channels or values than façades of 256 px")
    flip = reader.read("datasets.facades.augment", Augment, ROOT / reader.FILE).flip
    sources = prepared.split("test").source
    cell = Cell.parse(model.record.dataset, model.record.model, str(model.record.seed))
    first = untrained(cell, model.recipe, prepared, flip)
    model.load("last")
    last = model.translator("source_to_target").translate(sources)
    epochs = f"{model.record.epochs} epoch{'s' if model.record.epochs > 1 else ''}"
    sets = {
        "the test photos themselves": test,
        "real train photos": train,
        **{f"test photos blurred, sigma {sigma:g} px": blurred(test, sigma) for sigma in SIGMAS},
        f"{model.record.model}, {epochs} ({model.record.steps} steps)": last,
        f"{model.record.model}, untrained": first,
    }
    asked = Evaluate(fid=True, kid=True, features="mixed_6e", dims=(FEATURE_DIMS,))
    network, rows = workspace.network(), []
    metrics = (*(network.metric_name(name, FEATURE_DIMS) for name in ("fid", "kid")), "swd", "ssim")
    for name, images in sets.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        scores, _, _ = score_paired_and_distribution(
            np.asarray(images),
            test,
            prepared.manifest.target,
            evaluate=asked,
            features=network,
            cache=workspace.folder / ".repix" / "features",
            describe=False,
        )
        rows.append({"what": name} | {metric: scores[metric] for metric in metrics})
    itself, real, *blurs, trained, before = rows
    verdicts = []
    for metric in metrics:
        sign = -1 if metric == "ssim" else 1  # from here on, more is worse
        # A photo of another house is no translation: for pairs, what is real is the photo itself.
        least = (itself if metric == "ssim" else real)[metric] * sign
        order = [least, trained[metric] * sign, before[metric] * sign]
        blur = [one[metric] * sign for one in (itself, *blurs)]
        verdicts.append(
            {
                "what": f"{metric}: real, trained, untrained",
                "ok": bool(order[0] < order[1] < order[2]),
            }
        )
        verdicts.append({"what": f"{metric}: rising with the blur", "ok": bool(np.all(np.diff(blur) > 0))})
    by_metric = {
        metric: f"{'yes' if verdicts[2 * i]['ok'] else '**no**'} / {'yes' if verdicts[2 * i + 1]['ok'] else '**no**'}"
        for i, metric in enumerate(metrics)
    }
    rows.append({"what": "real < trained < untrained / worse with each blur"} | by_metric)
    rows[-1]["ok"] = all(verdict["ok"] for verdict in verdicts)
    return {
        "columns": [("what", f"{len(test)} images of {test.shape[1]} px against the {len(test)} real test photos")]
        + [(metric, metric) for metric in metrics],
        "rows": rows,
        "verdicts": verdicts,
        "cell": {"networks": model.record.networks, "epochs": model.record.epochs, "steps": model.record.steps},
    }


# --- the stage ---------------------------------------------------------------------------------


def evaluate(workspace: Workspace) -> dict[str, Any]:
    """Return seconds and peak memory of the evaluate stage, without and with features."""
    import shutil

    workspace.prepared()
    workspace.trained()
    workspace.run("features")
    rows = []
    for name, asked in (
        ("L1, PSNR, SSIM, SWD", {"fid": False, "kid": False}),
        (f"the same and FID-{FEATURE_DIMS}, KID-{FEATURE_DIMS}", {}),
    ):
        workspace.configure(**asked)
        shutil.rmtree(workspace.folder / ".repix" / "features", ignore_errors=True)
        took = workspace.run("evaluate", *CELL)
        n = json.loads((workspace.folder / paths.METRICS / f"{'-'.join(CELL)}.json").read_text())["n"]
        rows.append({"metrics": name, "n": n, "seconds": round(took.seconds, 1), "gigabytes": round(took.peak, 2)})
    return {
        "columns": [
            ("metrics", "metrics"),
            ("n", "images"),
            ("seconds", "seconds, start to end"),
            ("gigabytes", "peak memory, GB"),
        ],
        "rows": rows,
    }


# --- the page ----------------------------------------------------------------------------------


def protocol_table() -> str:
    """Return what the code writes into ``protocol`` of metrics/<cell>.json, metric by metric."""
    from repix.evaluation import features
    from repix.evaluation.score import scorer
    from repix.metrics import METRICS

    rows = []
    for metric in METRICS:
        definition = scorer(metric).definition
        shown = "; ".join(f"*{key.replace('_', ' ')}* {value}" for key, value in definition.items())
        rows.append([f"`{metric.name}`", metric.better, shown])
    shown = "; ".join(f"*{key}* {value}" for key, value in features.PROTOCOL.items())
    names = ", ".join(f"`{metric.name}`" for metric in METRICS if metric.kind == "features")
    rows.append(
        [
            f"features of {names}; of `memorisation` where one of them is on",
            "",
            f"{shown}; *dims* and *weights* (sha256) as asked for",
        ]
    )
    return table(["metric", "better", "protocol"], rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"checks.agreement: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
