"""The page in a real browser: no error, no request, and nothing that axe-core finds serious."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from lit_compress.report.content import Run, Skipped
from lit_compress.report.page import build_page
from report.cards import full_card

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
PAGES = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
#: Writes into the page how wide it is, and what axe-core finds.
PROBE = """<script>{axe}</script><script>
addEventListener("load", async () => {{
  const found = window.axe ? (await axe.run()).violations : [];
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify({{
    wide: document.documentElement.scrollWidth - innerWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    paper: getComputedStyle(document.body).backgroundColor,
    faults: found.filter(one => ["serious", "critical"].includes(one.impact))
      .map(one => one.id + " " + one.nodes[0].html),
  }});
  document.body.append(result);
}});</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="no Chromium is installed"),
]


def run_browser(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    words += ["--disable-background-networking", f"--user-data-dir={path.parent / 'profile'}"]
    words += ["--virtual-time-budget=20000", "--dump-dom", *options, path.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(scope="module")
def page() -> str:
    runs = [Run(n, f"{n}/card.json", full_card(f"run {n}")) for n in (1, 2)]
    return build_page(runs, [Skipped("3/card.json", "it is not JSON")])


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm, which fetches axe-core, is not installed")
    folder = tmp_path_factory.mktemp("npm")
    words = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "axe-core@4"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"axe-core cannot be fetched: {done.stderr[:200]}")
    return (folder / "node_modules/axe-core/axe.min.js").read_text("utf-8")


def test_no_console_error_and_no_request(page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page, "utf-8")
    done = run_browser(tmp_path / "page.html")
    assert "What fell short" in done.stdout
    assert not re.findall(r".*CONSOLE.*", done.stderr)


def test_the_policy_of_the_page_tells_of_each_request(page: str, tmp_path: Path) -> None:
    asking = page.replace("<main>", '<main><img alt="" src="other.png">')
    (tmp_path / "page.html").write_text(asking, "utf-8")
    assert re.search(r"CONSOLE.*other\.png", run_browser(tmp_path / "page.html").stderr)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 500])  # headless Chromium has no narrower window
def test_no_sideways_scroll_and_no_serious_fault(
    page: str, axe: str, dark: bool, width: int, tmp_path: Path
) -> None:
    assert PAGES in page
    probe = page.replace(PAGES, "default-src * 'unsafe-inline' 'unsafe-eval' data:")
    probe = probe.replace(
        "</body>", PROBE.format(axe=axe.replace("</script", "<\\/script")) + "</body>"
    )
    (tmp_path / "page.html").write_text(probe, "utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = run_browser(tmp_path / "page.html", scheme, f"--window-size={width},900")
    found = re.search(r'<pre id="result">(.+?)</pre>', done.stdout)
    assert found, done.stderr[-500:]
    result = json.loads(unescape(found[1]))
    assert result["dark"] is dark
    assert (result["paper"] == "rgb(18, 23, 28)") is dark
    assert result["wide"] <= 0
    assert result["faults"] == []
