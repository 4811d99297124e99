"""Writes the same three rows, with a column of every type, as types.parquet, types_integers.parquet and types.jsonl,
and an empty table as empty.parquet, into the folder of this file. They were made by pyarrow 26.
"""
import datetime as dt
import decimal
import os
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

D = decimal.Decimal
utc = dt.timezone.utc
stamps = [dt.datetime(1969, 12, 31, 23, 59, 59, 500000), dt.datetime(2024, 2, 29, 12), dt.datetime(2024, 3, 1)]
ids = [uuid.UUID(int=0x0123456789ABCDEF0123456789ABCDEF), uuid.UUID(int=2), uuid.UUID(int=3)]

columns = {
    "text": (["a", "b", "c"], pa.string()),
    "int": ([2**53, 2**53 + 1, 2**63 - 1], pa.int64()),
    "unsigned": ([1, 2**63, 2**64 - 1], pa.uint64()),
    "decimal": ([D("0.10"), D("12345678901234567890.12"), D("12345678901234567890.13")], pa.decimal128(38, 2)),
    "small": ([D("-0.50"), D("0.25"), D("7.00")], pa.decimal128(9, 2)),
    "double": ([0.1, 0.30000000000000004, 1e301], pa.float64()),
    "single": ([0.1, 0.2, 0.3], pa.float32()),
    "half": ([0.1, 0.2, 0.3], pa.float16()),
    "keep": ([True, False, True], pa.bool_()),
    "date": ([s.date() for s in stamps], pa.date32()),
    "stamp": (stamps, pa.timestamp("us")),
    "zoned": ([s.replace(tzinfo=utc) for s in stamps], pa.timestamp("ms", "Europe/Berlin")),
    "time": ([dt.time(9, 30), dt.time(10), dt.time(23, 59, 59, 999999)], pa.time64("us")),
    "language": (["en", "en", "de"], pa.dictionary(pa.int8(), pa.string())),
    "uuid": ([i.bytes for i in ids], pa.uuid()),
    "meta": ([{"score": 1, "kind": "x"}, {"score": 2, "kind": "y"}, {"score": 3, "kind": "x"}],
             pa.struct([("score", pa.int8()), ("kind", pa.string())])),
    "nothing": ([None, None, None], pa.null()),
}


def array(values, kind):
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    if pa.types.is_float16(kind):
        values = [np.float16(v) for v in values]
    return pa.array(values, kind)


def written(name, value):
    """A value as JSON has it."""
    if value is None:
        return "null"
    if name == "meta":
        return '{"score": %d, "kind": "%s"}' % (value["score"], value["kind"])
    if name == "keep":
        return "true" if value else "false"
    if isinstance(value, (int, float, D)):
        return str(value)
    if name == "uuid":
        return '"%s"' % uuid.UUID(bytes=value)
    if name == "stamp":
        return '"%s"' % value.isoformat()
    if name == "zoned":
        return '"%s"' % value.isoformat().replace("+00:00", "Z").replace("500000", "5")
    return '"%s"' % (value.isoformat() if hasattr(value, "isoformat") else value)


here = os.path.dirname(os.path.abspath(__file__))
table = pa.table({name: array(values, kind) for name, (values, kind) in columns.items()})
for name, integers in ("types.parquet", False), ("types_integers.parquet", True):
    pq.write_table(table, os.path.join(here, name), compression="zstd", write_statistics=False, store_schema=False,
                   store_decimal_as_integer=integers)
pq.write_table(pa.table({}), os.path.join(here, "empty.parquet"), store_schema=False)
with open(os.path.join(here, "types.jsonl"), "w") as out:
    for row in range(3):
        out.write("{" + ", ".join('"%s": %s' % (n, written(n, v[row])) for n, (v, _) in columns.items()) + "}\n")
