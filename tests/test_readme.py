"""What the README shows is what the code takes."""

from __future__ import annotations

import re
from pathlib import Path

from rolecraft import store
from rolecraft.judges import calls

README = Path(__file__).parents[1] / "README.md"


def test_the_sample_line_of_a_data_file_loads_with_its_call_and_result(tmp_path):
    (line,) = re.findall(r"^```json\n(.+)\n```$", README.read_text(encoding="utf-8"), re.MULTILINE)
    path = tmp_path / "data.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")
    (record,) = store.read_trajectories(path)
    (call,) = record.messages[1].tool_calls
    assert (call.name, dict(call.arguments)) == ("weight", {"item": "Lamp"})
    assert (record.messages[2].tool_call_id, record.messages[2].content) == (call.id, "900")
    assert calls.judge(record).score == 1
