"""The program that each processor runs: outputs of artefacts, and what their check says.

    python answers_program.py JOBS ANSWERS

It imports numpy, lit_compress, and the runtime of each job.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lit_compress import load
from lit_compress.artifact import OnnxModel, read_card, sqnr_db
from lit_compress.artifact.replay import REPLAY, read_replay
from lit_compress.errors import ArtifactError


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Load an artefact with its check, and write the outputs that it has here without."""
    folder, runtime = job["folder"], job["runtime"]
    said = "accepted"
    try:
        load(folder, runtime=runtime)
    except ArtifactError as error:
        said = str(error)
    model = load(folder, runtime=runtime, check=False)
    np.save(job["outputs"], model(np.load(job["images"])))
    return {"said": said, "lost": lost_db(model, job), "torch": "torch" in sys.modules}


def lost_db(model: OnnxModel, job: dict[str, Any]) -> float:
    """Return by how much the stored inputs are further from the float network than recorded."""
    inputs, expected = read_replay(Path(job["folder"], REPLAY))
    here = min(map(sqnr_db, expected, model.all_outputs(*inputs)))
    int8 = read_card(job["folder"]).variant("int8")
    measured = [file.replay_db for file in int8.formats if file.format == job["runtime"]]
    if int8.fidelity is not None and not measured:
        measured = [int8.fidelity.replay_db]
    if measured[0] is None:
        raise SystemExit(f"{job['folder']} has an old card: write it again")
    return measured[0] - here


def main() -> None:
    """Write what came of each job, after each job."""
    jobs, answers = map(Path, sys.argv[1:])
    found = []
    for job in json.loads(jobs.read_text("utf-8")):
        found.append(answer(job))
        answers.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
