import pytest
from pyspark.sql.pandas.types import from_arrow_schema

from fer_pipeline.data.arrow import build_arrow_schema
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


def test_votes_are_an_additional_column():
    columns = dataset_columns("uint8", votes=True)
    assert columns.pop(VOTES) == "array<float>"
    assert columns == dataset_columns("uint8")


@pytest.mark.parametrize(
    "columns",
    [QUARANTINE, dataset_columns("uint8", votes=True), dataset_columns("float32")],
    ids=["quarantine", "uint8", "float32"],
)
def test_the_ddl_has_the_types_that_spark_gives_to_the_arrow_schema(columns):
    spark_schema = from_arrow_schema(build_arrow_schema(columns))
    expected = [f"{field.name} {field.dataType.simpleString()}" for field in spark_schema]
    assert format_ddl(columns).split(", ") == expected


def test_the_ddl_of_no_columns_is_empty():
    assert format_ddl({}) == ""


def test_the_columns_cannot_be_changed_by_a_caller():
    for columns in (ORIGIN, QUARANTINE):
        with pytest.raises(TypeError):
            columns["more"] = "int"  # type: ignore[index]
    dataset_columns("uint8").clear()
    assert "label" in dataset_columns("uint8")
