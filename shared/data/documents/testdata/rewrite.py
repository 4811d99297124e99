"""Writes the rows of types.parquet anew with another library: python rewrite.py pyarrow|polars|duckdb OUT."""
import os
import sys

import pyarrow.parquet as pq

library, out = sys.argv[1:]
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "types.parquet")
if library == "pyarrow":
    pq.write_table(pq.read_table(path), out, version="1.0", coerce_timestamps="us", compression="gzip")
elif library == "polars":
    import polars

    polars.from_arrow(pq.read_table(path)).write_parquet(out)
else:
    import duckdb

    duckdb.sql(f"COPY (SELECT * FROM '{path}') TO '{out}' (FORMAT parquet)")
