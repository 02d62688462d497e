"""The picture of the packages is compared with the import contracts."""

from scripts import draw_architecture, draw_preprocess


def test_every_package_has_a_description():
    layers = [
        *draw_architecture.read_layers("fer_pipeline"),
        *draw_architecture.read_layers("fer_pipeline.learning"),
    ]
    assert sorted(name for layer in layers for name in layer) == sorted(
        draw_architecture.DESCRIPTIONS
    )


def test_the_picture_is_the_same_svg_each_time(tmp_path):
    for name in ("first", "second"):
        assert draw_architecture.main([str(tmp_path / name)]) == 0
    first, second = (tmp_path / name / "packages.svg" for name in ("first", "second"))
    assert "<svg" in first.read_text()
    assert first.read_bytes() == second.read_bytes()


def test_every_step_of_preprocess_has_an_arrow():
    assert {step for arrow in draw_preprocess.ARROWS for step in arrow} == set(
        draw_preprocess.STEPS
    )


def test_the_picture_of_preprocess_is_an_svg(tmp_path):
    draw_preprocess.main([str(tmp_path)])
    assert "<svg" in (tmp_path / "preprocess.svg").read_text()
