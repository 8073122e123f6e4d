"""The examples of the pages run as they stand, and print what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli

from kevynode import NodeConfig

ROOT = Path(__file__).parents[2]

#: What the Python examples of a page print, one after the other.
PRINTED = {
    "README.md": [r"b'hello' \['127\.0\.0\.1:\d+'\]\n"],
    "docs/replication.md": [
        r"b'blue'\nb'colour:sky' b'grey'\n1 replica has it\n",
        r"forget what you know: everything before 1 is new\n"
        r"entry 1 \[b'SET', b'colour:sky', b'grey'\]\n"
        r"entries from 2 \[\[b'SET', b'a', b'1'\], \[b'SET', b'b', b'2'\]\]\n",
    ],
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PRINTED)
def test_programs(
    page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Where they keep their data.
    monkeypatch.chdir(tmp_path)
    examples = blocks(page, "python")
    assert len(examples) == len(PRINTED[page])
    for example, printed in zip(examples, PRINTED[page], strict=True):
        exec(compile(example, page, "exec"), {"__name__": "__main__"})
        assert re.fullmatch(printed, capsys.readouterr().out)


def test_configurations_of_the_page_on_replication() -> None:
    [example] = blocks("docs/replication.md", "toml")
    assert NodeConfig.from_dict(tomli.loads(example)).replication.upstream == "10.0.0.1:16004"


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            name, _, heading = target.partition("#")
            found = (page.parent / name) if name else page
            assert found.exists(), (page, target)
            if heading:
                titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                assert heading in slugs, (page, target)
