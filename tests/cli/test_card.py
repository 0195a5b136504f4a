from tests.evaluation.test_report import make


def test_a_card_is_written_where_hugging_face_looks_or_where_told(imgclf, tmp_path, capsys):
    run = make(tmp_path)
    assert imgclf("card", run.path) == 0
    assert capsys.readouterr().out.strip() == str(run.path / "README.md")
    assert (run.path / "README.md").read_text().startswith("---\nlibrary_name: imgclf\n")
    assert imgclf("card", run.path, "-o", tmp_path / "card.md") == 0
    assert (tmp_path / "card.md").read_bytes() == (run.path / "README.md").read_bytes()


def test_a_folder_without_run_or_scores_ends_with_4(imgclf, tmp_path, capsys):
    assert imgclf("card", tmp_path) == 4
    assert "expected a run folder" in capsys.readouterr().err
    run = make(tmp_path)
    run.metrics.unlink()
    assert imgclf("card", run.path) == 4
    assert "metrics.json" in capsys.readouterr().err
    assert imgclf("evaluate", run.path) == 4  # it has no model either


def test_a_place_that_cannot_be_written_ends_with_4(imgclf, tmp_path, capsys):
    run = make(tmp_path)
    (tmp_path / "file").touch()
    assert imgclf("card", run.path, "-o", tmp_path / "file" / "card.md") == 4
    assert "cannot be written" in capsys.readouterr().err
