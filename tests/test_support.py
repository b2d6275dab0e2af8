"""The tiny cell that other tests build on is a real one, for both systems."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(("system", "paired"), [("pix2pix", True), ("cyclegan", False)])
def test_tiny_cell_trains_evaluates_and_exports(tmp_path, tiny_cell, system, paired):
    from repix.config.evaluation import Evaluate
    from repix.config.export import Export
    from repix.data.prepared import Prepared
    from repix.evaluation.evaluate import evaluate
    from repix.exporting.export import export
    from repix.inference.trained import TrainedModel

    cell = tiny_cell(tmp_path, system)
    model = TrainedModel(cell.trained)
    assert model.record.steps == 6
    assert model.variants == ["last", "best"]
    metrics = evaluate(model, Prepared.open(cell.prepared), Evaluate(), tmp_path / "translations")
    for translator in model.record.translators:
        scores = metrics.scores[translator]["last"]
        assert (scores["l1"] is not None) == paired
        assert (tmp_path / "translations" / f"{translator}.png").is_file()
    if not paired:
        assert "unpaired" in metrics.protocol["l1"]["reason"]
    errors = export(model, Prepared.open(cell.prepared), Export(), tmp_path / "exports")
    assert len(errors) == 4 * len(model.record.translators)


def test_a_stage_that_the_system_killed_is_not_taken_for_one_that_failed(tmp_path):
    from checks import harness
    from repix.errors import UserError

    words = ["-c", "import os; print('said', flush=True); os.kill(os.getpid(), 9)"]
    with pytest.raises(UserError, match="train was killed, most likely since memory ran out; all that it said: "):
        harness._run_logged(tmp_path, "train", "train-a", words, {}, None)
    assert (tmp_path / "logs" / "train-a.log").read_text() == "said\n"
