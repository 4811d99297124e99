"""Writes a file with a column of every logical type that pyarrow knows, two rows and a null each:

    python logical.py FILE [integers] [split] [int96]

The words choose how: decimals in INT32 and INT64, BYTE_STREAM_SPLIT, timestamps in INT96 with pages of version 2. The
files beside this one were made so, by pyarrow 26.
"""
import datetime as dt
import decimal
import sys
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

D = decimal.Decimal
utc = dt.timezone.utc
day = dt.datetime(2024, 2, 29, 23, 59, 58, 123456)

columns = {
    "int8": ([-128, 127], pa.int8()),
    "int64": ([-(2**63), 2**63 - 1], pa.int64()),
    "uint8": ([0, 255], pa.uint8()),
    "uint32": ([0, 2**32 - 1], pa.uint32()),
    "uint64": ([2**53 + 1, 2**64 - 1], pa.uint64()),
    "bool": ([True, False], pa.bool_()),
    "half": ([0.5, -65504.0], pa.float16()),
    "float": ([0.1, 1e30], pa.float32()),
    "double": ([0.1, 1000000.0], pa.float64()),
    "decimal_small": ([D("-0.05"), D("12345.67")], pa.decimal128(9, 2)),
    "decimal_middle": ([D("-123456789012.345"), D("0.001")], pa.decimal128(18, 3)),
    "decimal_large": ([D("-12345678901234567890123.45"), D("0.10")], pa.decimal128(38, 2)),
    "decimal_whole": ([D("9007199254740993"), D("-1")], pa.decimal128(30, 0)),
    "decimal256": ([D("9" * 60 + ".5"), D("-0.5")], pa.decimal256(70, 1)),
    "date": ([dt.date(1969, 12, 31), dt.date(2024, 2, 29)], pa.date32()),
    "time_ms": ([dt.time(0, 0), dt.time(23, 59, 59, 999000)], pa.time32("ms")),
    "time_us": ([dt.time(1, 2, 3), dt.time(1, 2, 3, 4)], pa.time64("us")),
    "time_ns": ([dt.time(1, 2, 3), dt.time(1, 2, 3, 4)], pa.time64("ns")),
    "stamp_ms": ([dt.datetime(1969, 12, 31, 23, 59, 59, 500000), day], pa.timestamp("ms")),
    "stamp_us_utc": ([day.replace(tzinfo=utc), dt.datetime(1, 1, 1, tzinfo=utc)], pa.timestamp("us", "UTC")),
    "stamp_ns": ([day, dt.datetime(1970, 1, 1)], pa.timestamp("ns")),
    "stamp_zone": ([day.replace(tzinfo=utc), dt.datetime(2000, 1, 1, tzinfo=utc)], pa.timestamp("us", "Europe/Berlin")),
    "string": (["é", ""], pa.string()),
    "large_string": (["é", ""], pa.large_string()),
    "dictionary": (["a", "b"], pa.dictionary(pa.int8(), pa.string())),
    "binary": ([b"\xff", b""], pa.binary()),
    "fixed": ([b"abc", b"def"], pa.binary(3)),
    "uuid": ([uuid.UUID(int=0x0123456789ABCDEF0123456789ABCDEF).bytes, uuid.UUID(int=1).bytes], pa.uuid()),
    "json": (['{"a": 1}', "[]"], pa.json_()),
    "null": ([None, None], pa.null()),
}


def array(values, kind):
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values + [None], kind.storage_type))
    if pa.types.is_float16(kind):
        values = [np.float16(v) for v in values]
    return pa.array(values + [None], kind)


path, words = sys.argv[1], sys.argv[2:]
table = pa.table({name: array(values, kind) for name, (values, kind) in columns.items()})
options = {"compression": "zstd", "write_statistics": False, "store_schema": False}
if "integers" in words:
    options["store_decimal_as_integer"] = True
if "split" in words:
    whole = ("bool", "null", "string", "large_string", "dictionary", "binary", "json")
    options |= {"use_dictionary": False, "column_encoding": {c: "BYTE_STREAM_SPLIT" for c in columns if c not in whole}}
if "int96" in words:
    options |= {"use_deprecated_int96_timestamps": True, "data_page_version": "2.0"}
pq.write_table(table, path, **options)
