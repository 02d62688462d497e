import pytest

from fer_pipeline.data.schema import ORIGIN, QUARANTINE, VOTES, dataset_columns, format_ddl


@pytest.mark.parametrize(("dtype", "stored"), [("uint8", "binary"), ("float32", "array<float>")])
def test_a_dataset_has_an_image_a_label_and_an_origin(dtype, stored):
    assert dataset_columns(dtype) == {
        "image": stored,
        "label": "int",
        "emotion": "string",
        "source": "string",
        "record": "bigint",
        "image_hash": "string",
        "variant": "string",
        "replica": "int",
    }


def test_a_distribution_stands_beside_the_label():
    columns = dataset_columns("uint8", votes=True)
    assert columns.pop(VOTES) == "array<float>"
    assert columns == dataset_columns("uint8")


def test_columns_are_written_as_spark_reads_them():
    assert format_ddl(QUARANTINE) == (
        "source string, record bigint, reason string, detail string, excerpt string"
    )
    assert format_ddl({}) == ""


def test_the_columns_cannot_be_changed_from_outside():
    for columns in (ORIGIN, QUARANTINE):
        with pytest.raises(TypeError):
            columns["more"] = "int"
    dataset_columns("uint8").clear()
    assert "label" in dataset_columns("uint8")
