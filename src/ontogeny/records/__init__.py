"""What is on disk: JSON, safetensors and parquet, schema-versioned, atomic, the same bytes for the same values.

`write_member` and `read_member` keep everything that is known of one member of a suite; `pack` and `unpack` keep one
value (the job cache uses them). Nothing is pickled. Undefined numbers are NaN in memory and in parquet, null in JSON.
"""

from ontogeny.records.files import (
    read_json,
    read_table,
    read_tensors,
    replacing,
    write_json,
    write_table,
    write_tensors,
)
from ontogeny.records.member import MANIFEST, Failure, MemberRecord, read_member, write_member
from ontogeny.records.transfer import TransferRecord, read_transfer, write_transfer
from ontogeny.records.values import pack, unpack

__all__ = [
    "MANIFEST",
    "Failure",
    "MemberRecord",
    "TransferRecord",
    "pack",
    "read_json",
    "read_member",
    "read_table",
    "read_tensors",
    "read_transfer",
    "replacing",
    "unpack",
    "write_json",
    "write_member",
    "write_table",
    "write_tensors",
    "write_transfer",
]
