"""Schemas as a team would write them."""

import pandera.pandas as pa


class Orders(pa.DataFrameModel):
    id: int = pa.Field(gt=0, coerce=True)
    note: str = pa.Field(nullable=True, str_startswith="n")


SMALL = pa.DataFrameSchema(
    {
        "id": pa.Column(
            checks=[pa.Check.lt(5), pa.Check(lambda value: value != 3, element_wise=True, name="not_three")]
        )
    },
    checks=pa.Check(lambda row: row["id"] != row["note"], element_wise=True, name="differ"),
)
UNIQUE = pa.DataFrameSchema({"id": pa.Column(unique=True)})
MEAN = pa.DataFrameSchema({"id": pa.Column(checks=pa.Check(lambda ids: ids.mean() > 1, name="mean"))})
MISFIT = pa.DataFrameSchema({"absent": pa.Column(int)})
