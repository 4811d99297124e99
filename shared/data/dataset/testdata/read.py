"""Reads a shard with a library of Python; prints, for every sequence, its valid targets and the sum of its tokens."""
import sys

library, path = sys.argv[1:]
if library == "pyarrow":
    import pyarrow as pa

    rows = pa.ipc.open_file(pa.memory_map(path)).read_all().to_pydict()
elif library == "polars":
    import polars

    rows = polars.read_ipc(path).to_dict(as_series=False)
else:
    import duckdb
    import pyarrow as pa

    shard = pa.ipc.open_file(pa.memory_map(path)).read_all()
    rows = duckdb.sql("select tokens, valid, ranges from shard").to_arrow_table().to_pydict()
for tokens, valid, ranges in zip(rows["tokens"], rows["valid"], rows["ranges"]):
    print(valid, sum(tokens), len(tokens), ",".join(f"{r['document']}:{r['length']}" for r in ranges))
