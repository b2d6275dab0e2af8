"""The cards say what the records say, and MLCommons' own validator takes the data card."""

from __future__ import annotations

import json
import re

import pytest

from checks.support.repository import CELL
from repix.exporting import cards
from repix.files import digest_file
from repix.schemas import Exported, Manifest, Metrics, Trained


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_repository):
    return tiny_repository(tmp_path_factory.mktemp("cards") / "repository")


def test_model_card_holds_every_number_of_its_records(root):
    text = (root / "exports" / CELL / "MODEL_CARD.md").read_text()
    metrics = Metrics.read(root / "metrics" / f"{CELL}.json")
    exported = Exported.read(root / "exports" / CELL / "export.json")
    trained = Trained.read(root / "runs" / CELL / "trained.json")
    headings = re.findall(r"^## (.*)$", text, re.M)
    assert headings == [
        "Data and licence", "Recipe", "Metrics", "Pictures", "Files", "Limits", "How to reproduce",
    ]  # fmt: skip
    for metric in ("l1", "psnr"):
        value = metrics.scores["source_to_target"]["last"][metric]
        low, high = metrics.protocol["description"]["source_to_target"]["last"][metric]["ci95"]
        row = next(line for line in text.splitlines() if line.startswith(f"| source_to_target | last | {metric} |"))
        assert row.endswith(f"| {value:.4f} | {low:.4f} to {high:.4f} | 2 |")
    for digest in (*exported.weights.values(), exported.digests["source_to_target"]["onnx"]):
        assert f"`{digest}`" in text
    assert "Licence of the data: CC0." in text
    assert json.loads(re.search(r"```json\n(.*?)```", text, re.S)[1]) == trained.recipe
    for link in re.findall(r"\]\(([^)]*)\)", text):
        assert (root / "exports" / CELL / link).exists(), link


def card_of(root, exported=None, **entry) -> str:
    from repix.config.archive import Archive

    return cards.model_card(
        Trained.read(root / "runs" / CELL / "trained.json"),
        Metrics.read(root / "metrics" / f"{CELL}.json"),
        exported or Exported.read(root / "exports" / CELL / "export.json"),
        Manifest.read(root / "data" / "prepared" / "tiny" / "manifest.json"),
        Archive.model_validate({"urls": ["file:tiny.zip"], "licence": "CC0"} | entry),
    )


def test_the_card_says_of_a_format_of_ones_own_nothing_that_it_cannot_know(root):
    """repix knows of its own formats alone what a reader of the file needs."""
    exported = Exported.read(root / "exports" / CELL / "export.json")
    said = "The other files need nothing of repix."
    held = {"max": 1e-5, "mean": 1e-6}
    own = exported.model_copy(update={"tolerance": {"keras": held, "onnx": held}})
    assert said in card_of(root, own)
    text = card_of(root, own.model_copy(update={"tolerance": own.tolerance | {"toy": held}}))
    assert said not in text and "SavedModel, ONNX and LiteRT need nothing of repix." in text


def test_no_licence_and_no_address_breaks_out_of_the_model_card(root):
    from markdown_it import MarkdownIt

    licence = "a | b <script>`x`\n\n# all rights\n| [you](javascript:x) *win* |"
    url = "https://example.org/`\n## heading/<b>|*x*"
    shown = [
        MarkdownIt().enable("table").parse(text) for text in (card_of(root), card_of(root, licence=licence, urls=[url]))
    ]
    assert [token.type for token in shown[0]] == [token.type for token in shown[1]]
    words = ["".join(child.content for token in tokens for child in token.children or ()) for tokens in shown]
    flat = [" ".join(text.splitlines()) for text in (licence, url)]
    assert flat[0] in words[1] and flat[1] in words[1]
    assert words[1] == words[0].replace("CC0", flat[0]).replace("file:tiny.zip", flat[1])


def test_mlcroissant_takes_the_data_card_and_refuses_a_broken_one(root, tmp_path):
    import mlcroissant

    path = root / "exports" / CELL / "croissant.json"
    dataset = mlcroissant.Dataset(jsonld=path)
    assert not dataset.metadata.ctx.issues.errors
    files = {file["name"] for file in json.loads(path.read_text())["distribution"]}
    assert {file.name for file in dataset.metadata.distribution} == files

    card = json.loads(path.read_text())
    del card["distribution"][0]["encodingFormat"]
    (tmp_path / "broken.json").write_text(json.dumps(card))
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(jsonld=tmp_path / "broken.json")


def test_data_card_has_the_fields_of_croissant_and_the_digests_of_the_files(root):
    card = json.loads((root / "exports" / CELL / "croissant.json").read_text())
    folder = root / "data" / "prepared" / "tiny"
    assert card["@type"] == "sc:Dataset"
    assert card["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    for field in (
        "@context",
        "name",
        "description",
        "license",
        "url",
        "version",
        "creator",
        "distribution",
        "recordSet",
    ):
        assert card[field], field
    assert re.fullmatch(r"\d+\.\d+\.\d+(\+\w+)?", card["version"])
    assert len(card["distribution"]) == 6
    for file in card["distribution"]:
        path = folder / file["contentUrl"]
        assert (file["@type"], file["sha256"]) == ("cr:FileObject", digest_file(path))
        assert file["contentSize"] == f"{path.stat().st_size} B"
        assert file["encodingFormat"]
        assert file["name"]
    (splits,) = card["recordSet"]
    assert splits["@type"] == "cr:RecordSet"
    names = {field["@id"] for field in splits["field"]}
    assert all(row.keys() == names for row in splits["data"])
    assert {row["splits/name"]: row["splits/source"] for row in splits["data"]} == {"train": 3, "val": 2, "test": 2}
    identifiers = [file["@id"] for file in card["distribution"]] + [splits["@id"], *names]
    assert len(set(identifiers)) == len(identifiers)


def test_cards_are_the_same_again(root):
    card = card_of(root)
    assert card == (root / "exports" / CELL / "MODEL_CARD.md").read_text()
    assert str(root) not in card
