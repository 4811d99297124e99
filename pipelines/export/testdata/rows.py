"""Prints three rows of an exported Parquet file, as a library reads them."""

import sys

library, path = sys.argv[1:]
if library == "duckdb":
    import duckdb

    found = duckdb.sql(f"select * from '{path}'")
    names = found.columns
    rows = [dict(zip(names, row)) for row in found.fetchall()]
else:
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(path).to_pylist()

for metric, step, layer, parameters in [
    ("train/loss", 5, None, None),
    ("results/bits_per_token", 12, None, "sequences=2"),
    ("probe/ipmr", 9, 1, None),
]:
    [row, *_] = [
        r for r in rows
        if (r["metric"], r["step"], r["layer"], r["parameters"]) == (metric, step, layer, parameters)
    ]
    *others, value = row.values()
    print("|".join(map(str, others)) + f"|{value:.4f}")
