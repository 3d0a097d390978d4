"""The report is one page that shows every run it is given, and shows hostile text as text."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from episodes import FIND, READ, episode

from rolecraft import report
from rolecraft.errors import DataError, NotFound
from rolecraft.store import Run
from rolecraft.types import Message, ToolSpec, Usage, Verdict

ESCAPE = '</script><script>document.title="owned"</script><img src=x onerror=document.title="owned"><!--<script>'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Reads a page as a browser's parser would: its elements, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data

    @property
    def data(self):
        return json.loads(self.scripts[0])


def fill(folder, *trajectories, name=None, split="test"):
    run = Run(folder)
    for trajectory in trajectories:
        run.append(trajectory)
    if name is not None:
        run.write_settings({"evaluation": {"name": name, "split": split, "seed": 7}})
    return run


def some(right, n, **changes):
    used = Usage(prompt=100, cached=40, completion=12, seconds=0.25)
    return [
        episode(
            FIND, READ, "3809" if i < right else "17", score=float(i < right), name=f"task-{i}", usage=used, **changes
        )
        for i in range(n)
    ]


def page(*folders, **options):
    written = report.write([*folders], folders[0] / "report.html", **options).read_text(encoding="utf-8")
    return Page(written), written


def hostile():
    made = episode(("find_owner", {ESCAPE: ESCAPE}, ESCAPE), None, ESCAPE, name=ESCAPE, family=ESCAPE, note=ESCAPE)
    tools = (*made.task.tools, ToolSpec(ESCAPE, ESCAPE, {"properties": {ESCAPE: {}}}))
    opening = (Message("system", ESCAPE, name=ESCAPE), Message("user", f"{ESCAPE} @@SCRIPT@@"))
    task = replace(made.task, messages=opening, tools=tools)
    spoken = tuple(replace(m, speaker=ESCAPE, unparsed=m.unparsed and ESCAPE) for m in made.messages[1:])
    verdict = Verdict(0.0, ESCAPE, {ESCAPE: 0.5})
    return replace(made, task=task, messages=(*opening, *spoken), verdict=verdict, lineage=(ESCAPE,))


def test_the_page_asks_nothing_of_the_network(tmp_path):
    fill(tmp_path, *some(1, 2), name="tuned")
    parsed, text = page(tmp_path)
    links = [value for _, attrs in parsed.elements for key, value in attrs.items() if key in ("src", "href", "action")]
    assert links
    assert all(link.startswith(("#", "data:,")) for link in links)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttp|WebSocket", text)


def test_only_the_pages_own_script_may_run(tmp_path):
    fill(tmp_path, *some(1, 2))
    parsed, _ = page(tmp_path)
    policy = next(attrs["content"] for _, attrs in parsed.elements if "http-equiv" in attrs)
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}';" in policy


def test_hostile_text_makes_no_element(tmp_path):
    run = fill(tmp_path / "a", hostile(), name=ESCAPE, split=ESCAPE)
    run.write_lineage({"command": ESCAPE, "note": ESCAPE})
    run.log({"step": 1, f"loss/{ESCAPE}": 1.0})
    run.log({"step": 2, f"loss/{ESCAPE}": 1.0})
    parsed, text = page(tmp_path, title=ESCAPE)
    assert [tag for tag, _ in parsed.elements if tag in ("script", "img")] == ["script", "script"]
    assert text.count("</script") == 2
    assert text.count("<!--") == 0


def test_the_page_tells_how_tools_were_called(tmp_path):
    fill(tmp_path, episode(FIND, "17", wanted=(), name="a"), episode("17", wanted=(), name="b"), name="<b>mine")
    _, text = page(tmp_path)
    (section,) = re.findall(r'<section id="calling".*?</section>', text, re.DOTALL)
    assert re.findall(r"<td class=n>(.*?)</td>", section) == ["0.0", "50.0", "-"]
    assert "&lt;b&gt;mine" in section


def test_why_tasks_failed_stands_in_one_table_where_there_are_several_runs(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    fill(before, *some(1, 4), name="before")
    fill(after, *some(3, 4), name="after")
    assert "Side by side" not in page(before)[1]
    _, text = page(before, after)
    assert "Side by side, % of all tasks" in text
    assert ">75.0</td>" in text.partition("Side by side")[2]
    assert "<th class=n>no such tool</th>" in text


def test_an_observation_failed_where_the_record_says_so_whatever_its_text(tmp_path):
    made = episode(("find_owner", {}, "error: 42"), ("find_owner", {}, "error: 42"), "17")
    first = next(i for i, m in enumerate(made.messages) if m.role == "tool")
    marked = tuple(replace(m, failed=i == first) for i, m in enumerate(made.messages))
    fill(tmp_path, replace(made, messages=marked))
    (item,) = page(tmp_path)[0].data["items"]
    assert [m.get("failed") for m in item["messages"] if m["role"] == "tool"] == [True, None]


def test_hostile_text_is_kept_letter_by_letter(tmp_path):
    fill(tmp_path, hostile())
    (item,) = page(tmp_path)[0].data["items"]
    assert item["id"] == item["family"] == item["why"] == ESCAPE
    assert item["messages"][1]["text"] == f"{ESCAPE} @@SCRIPT@@"
    assert item["messages"][2]["calls"] == [["find_owner", [[ESCAPE, json.dumps(ESCAPE)]]]]
    assert item["messages"][4]["unparsed"] == ESCAPE


@pytest.mark.parametrize("text", ["\ud800 lone", "\x00\x1b[31m\u202e", "\u2028\u2029", "字 🙂"])
def test_any_unicode_can_be_written(tmp_path, text):
    fill(tmp_path, episode(text), name=text.replace("\x00", ""))
    (item,) = page(tmp_path)[0].data["items"]
    assert item["messages"][-1]["text"] == text


def test_numbers_too_long_for_a_browser_stay_exact(tmp_path):
    fill(tmp_path, episode(("python", {"n": 12345678901234567891, "x": 1.0, "code": "a\nb"})))
    (item,) = page(tmp_path)[0].data["items"]
    assert item["messages"][1]["calls"] == [["python", [["n", "12345678901234567891"], ["x", "1.0"], ["code", "a\nb"]]]]


def test_a_long_text_is_cut_and_says_so(tmp_path):
    fill(tmp_path, episode("x" * 50_000))
    (item,) = page(tmp_path)[0].data["items"]
    assert item["messages"][-1]["text"].endswith("x\n[30,000 more characters are in the run folder]")


def test_arguments_nested_too_deep_are_named_not_shown():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert report._call("f", {"a": deep}) == ["f", [["a", "(nested too deep to show)"]]]


def test_each_trajectory_carries_what_the_reader_needs(tmp_path):
    made = replace(episode(FIND, "17", usage=Usage(90, 50, 12, 0.125)), seed=41, final_state={"sql": {"rows": 2}})
    fill(tmp_path, made, name="tuned")
    found = page(tmp_path)[0].data
    (item,) = found["items"]
    assert (item["seed"], item["stop"], item["score"], item["class"]) == ("41", "answered", 0.0, "missing step")
    assert item["turns"] == [[1, 90, 50, 12, 0.125, "end"], [3, 90, 50, 12, 0.125, "end"]]
    assert item["calls"] == [["find_owner", [["house", '"Grontif"']]], ["read_debt", [["key", '"Plalples"']]]]
    assert ["answers", '[\n  "3809"\n]'] in item["expected"]
    assert [found["tools"][i][0] for i in item["tools"]] == ["find_owner", "read_debt", "python"]
    assert '"rows": 2' in item["state"]


def test_tools_that_tasks_share_are_stored_once(tmp_path):
    fill(tmp_path, *some(1, 20))
    assert len(page(tmp_path)[0].data["tools"]) == 3


def test_what_only_opens_the_world_is_left_out(tmp_path):
    fill(tmp_path, episode("17", world=["x" * 50] * 50))
    (item,) = page(tmp_path)[0].data["items"]
    assert [key for key, _ in item["expected"]] == ["family", "answers"]


def visible(text):
    """Return the page's text outside scripts and styles, its white space made single spaces."""
    bare = re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
    return " ".join(html.unescape(bare).split())


def test_rows_are_runs_and_columns_splits(tmp_path):
    for name, right in (("zero-shot", 1), ("tuned", 9)):
        for split in ("test", "tools"):
            fill(tmp_path / name / split, *some(right, 10), name=name, split=split)
    text = visible(page(tmp_path)[1])
    assert "Trajectories: 40. Runs: 4." in text
    assert "tuned, test 90.0 % 59.6 to 98.2 (95 %), n 10 +80.0 points on the best other" in text
    assert "test, n 10 zero-shot 10.0 (2–40) tuned 90.0 (60–98)" in text
    assert "tools tuned against zero-shot +80.0 +50.0 to +100.0 0.0078 8 / 0 / 10 exact McNemar" in text
    assert "tuned · test: 1 of 10 failed wrong answer 1" in text
    assert "zero-shot · tools 200 120 24 0.5 3 2" not in text
    assert "zero-shot · tools 300 180 36 0.75 3 2" in text


def test_splits_of_two_benchmarks_are_two_columns_and_not_compared(tmp_path):
    for name, right in (("gsm8k", 1), ("toolworld", 9)):
        run = fill(tmp_path / name, *some(right, 10), name=name)
        run.write_settings({"evaluation": {"name": name, "split": "test", "seed": 7, "benchmark": name}})
    text = visible(page(tmp_path)[1])
    assert "toolworld, toolworld:test 90.0 %" in text
    assert "on the best other" not in text
    assert "against" not in text


def test_the_best_row_is_the_best_of_what_all_have_played(tmp_path):
    for name, split, right in (("one", "test", 6), ("two", "test", 5), ("two", "easy", 10)):
        fill(tmp_path / f"{name}-{split}", *some(right, 10), name=name, split=split)
    assert "one, test 60.0 %" in visible(page(tmp_path)[1])


def test_runs_of_one_name_and_split_are_told_apart_by_folder(tmp_path):
    for folder in ("a", "b"):
        fill(tmp_path / folder, *some(1, 2), name="tuned")
    assert page(tmp_path)[0].data["runs"] == [f"tuned ({tmp_path / folder}) · test" for folder in ("a", "b")]


def test_training_is_drawn_with_a_line_for_each_role(tmp_path):
    run = Run(tmp_path)
    for step in range(1, 6):
        run.log({"step": step, "loss": 3 / step, "loss/reasoner": 2 / step, "learning_rate": 1e-3})
    parsed, text = page(tmp_path)
    assert sum(tag == "polyline" for tag, _ in parsed.elements) == 3
    assert "loss 0.6 at the end loss/reasoner 0.4 at the end" in visible(text)


def test_settings_lineage_and_the_command_are_shown(tmp_path):
    run = fill(tmp_path, *some(1, 1))
    run.write_settings({"training": {"learning_rate": 0.004}})
    run.write_lineage({"command": "rolecraft train r.yaml", "data": {"sha256": "ab12"}})
    text = visible(page(tmp_path)[1])
    assert "Runs: 1. rolecraft train r.yaml" in text
    assert "learning_rate: 0.004" in text
    assert "sha256: ab12" in text


def test_trajectories_without_verdicts_are_shown_without_scores(tmp_path):
    fill(tmp_path, *(replace(t, verdict=None) for t in some(1, 3)))
    parsed, text = page(tmp_path)
    assert [item["score"] for item in parsed.data["items"]] == [None] * 3
    assert 'id="scores"' not in text


def test_beyond_the_limit_trajectories_are_counted_but_not_carried(tmp_path):
    fill(tmp_path, *some(3, 5), name="tuned")
    parsed, text = page(tmp_path, limit=2)
    assert len(parsed.data["items"]) == 2
    assert "60.0 %" in visible(text)
    assert "3 trajectories beyond the first 2 of a run are left out" in text


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(NotFound, match="no run in"):
        report.write([tmp_path], tmp_path / "report.html")


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    run = fill(tmp_path, *some(1, 1))
    before = page(tmp_path)[1]
    run.append(replace(some(1, 1)[0], verdict=Verdict(2.0)))
    with pytest.raises(DataError, match="score 2"):
        page(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Return a function that opens the page in a real browser and returns the document it made."""
    if CHROMIUM is None:
        pytest.skip("no chromium here; install it to test the page in a real browser")
    folder = tmp_path_factory.mktemp("browser")
    fill(folder / "tuned", hostile(), *some(3, 150), name="tuned")
    fill(folder / "base", *some(0, 40), name="base")
    written = report.write([folder], folder / "report.html")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --virtual-time-budget=3000 --dump-dom"

    def dump(fragment="", width=1280):
        profile = tmp_path_factory.mktemp("profile")
        own = [f"--user-data-dir={profile}", f"--window-size={width},900", f"{written.as_uri()}#{fragment}"]
        done = subprocess.run([CHROMIUM, *flags.split(), *own], capture_output=True, timeout=120, check=True)
        return Page(done.stdout.decode()), done.stdout.decode()

    return dump


def test_a_browser_lists_the_trajectories(browse):
    parsed, text = browse()
    assert parsed.elements[0] == ("html", {"lang": "en", "data-ready": "191"})
    assert "191 of 191 trajectories" in visible(text)
    assert len(re.findall(r'<a href="#t=\d+"', text)) == 100
    assert "Show 91 more" in text


def test_a_browser_shows_hostile_text_as_text(browse):
    parsed, text = browse("t=0")
    body = text[text.index("<body") : text.index('<script type="application/json"')]
    assert "<title>Rolecraft: " in text
    assert not [tag for tag, _ in Page(body).elements if tag in ("script", "img")]
    assert visible(body).count(" ".join(ESCAPE.split())) >= 10
    assert sum(tag == "script" for tag, _ in parsed.elements) == 2


def test_a_browser_narrows_the_list_by_the_address(browse):
    _, text = browse("run=tuned+%C2%B7+test&verdict=passed&q=task-1+grontif")
    assert "1 of 191 trajectories" in visible(text)
    assert re.findall(r'<b class="mono">([^<]*)</b>', text)[:2] == ["hop", "tuned · test"]


def test_a_browser_on_a_phone_shows_the_list_or_one_trajectory(browse):
    _, listed = browse(width=500)
    assert '<div id="browser">' in listed
    assert "Choose a trajectory." in listed
    _, opened = browse("t=3", width=500)
    assert '<div id="browser" class="open">' in opened
    assert '<span class="name">find_owner</span><dl><dt>house</dt><dd class="value">"Grontif"</dd></dl>' in opened
