"""What is on disk: data files read row by row, and the run folder that a killed process can go on from.

Not covered: checkpoints of training, which transformers writes into the same folder.
"""

from __future__ import annotations

from rolecraft.store.files import atomic, cache, hash_file, write_jsonl
from rolecraft.store.lock import lock
from rolecraft.store.records import record_from_json, record_to_json
from rolecraft.store.rows import BadRows, OnBadRow, objects, read_jsonl, read_pairs, read_rows, read_trajectories
from rolecraft.store.run import Run

__all__ = [
    "BadRows",
    "OnBadRow",
    "Run",
    "atomic",
    "cache",
    "hash_file",
    "lock",
    "objects",
    "read_jsonl",
    "read_pairs",
    "read_rows",
    "read_trajectories",
    "record_from_json",
    "record_to_json",
    "write_jsonl",
]
