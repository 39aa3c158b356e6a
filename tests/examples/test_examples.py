"""Every example runs as it stands, and shows what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

SHOWN = {
    "tenants.py": ["bakery -> We open at six.", "bank -> We open at nine.", "left: 1"],
    "router_with_fallback.py": ["answered by sure", "fast: ", "served from the cache: exact"],
    "batch.py": ["line-3 -> An answer to 'What are your hours?'.", "3 lines, 2 calls"],
    "tune_from_a_log.py": ["7 calls", "0.8"],
}


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    """In an empty directory, offline, to its end."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for text in SHOWN[name]:
        assert text in done.stdout
    assert "Traceback" not in done.stderr


def test_the_web_service_streams_and_hits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second caller gets the same pieces from the cache, another tenant does not."""
    from starlette.testclient import TestClient

    monkeypatch.setenv("CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(EXAMPLES.parent))
    from examples import fastapi_streaming as example

    asked: list[str] = []
    ask_model = example.ask_model

    def counted(request: object) -> object:
        asked.append("asked")
        return ask_model(request)  # type: ignore[arg-type]

    monkeypatch.setattr(example, "ask_model", counted)
    question = {"prompt": "How do I reset my password?"}
    with TestClient(example.app) as client:
        for tenant, calls in (("acme", 1), ("acme", 1), ("other", 2)):
            answer = client.post("/ask", json=question, headers={"x-tenant": tenant})
            assert answer.text == "Open Settings, choose Security, and follow the link."
            assert len(asked) == calls
        assert client.get("/stats").json()["exact"] == 1


def test_every_example_is_listed_and_run() -> None:
    """A new example is tested, and the page of examples names it."""
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    assert programs == {*SHOWN, "fastapi_streaming.py"}
    page = (EXAMPLES / "README.md").read_text()
    assert all(f"[{name}]({name})" in page for name in programs)
