"""Prune and quantise all foreign networks of the list, each in a process of its own.

    python tests/zoo/run.py [--only TEXT] [--missing] [--jobs 2] [--seconds 900]

Writes ``tests/zoo/results.json``: one entry a network; one that ends with an error or takes too
long has failed. ``--only`` runs the networks whose name has the text, and keeps the other entries.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo.networks import entries

RESULTS = Path(__file__).with_name("results.json")


def tried(name: str, seconds: int) -> dict[str, Any]:
    """Return the result of one network."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    words = [sys.executable, str(Path(__file__).with_name("trial.py")), name]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=seconds, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return _failed(name, f"did not end within {seconds} s")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return _failed(name, f"ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _failed(name: str, why: str) -> dict[str, Any]:
    return {"name": name, "pruned": {"error": why}, "quantised": {"error": why}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="Part of the names to run.")
    parser.add_argument("--jobs", type=int, default=2, help="Number of processes.")
    parser.add_argument("--seconds", type=int, default=900, help="Longest time of one network.")
    parser.add_argument("--missing", action="store_true", help="Run those without a result.")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else []
    known = {result["name"]: result for result in results}
    skipped = known if options.missing else {}
    names = [name for name in entries() if options.only in name and name not in skipped]
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda name: tried(name, options.seconds), names):
            known[result["name"]] = result
            print(json.dumps(result), flush=True)
            kept = [known[name] for name in entries() if name in known]
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
