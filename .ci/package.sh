#!/usr/bin/env bash
# Builds the source distribution, and the wheel from it, into dist/; then installs each in an
# environment that has nothing of this checkout, and uses it. PYTHON and PIP_INDEX can be set.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TQDM_DISABLE=1
index=${PIP_INDEX:-}

"${PYTHON:-python3}" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet $index build twine
rm -rf dist
# from a copy, so that neither build/ nor *.egg-info of an earlier build gets in
mkdir "$work/source"
tar c --exclude=__pycache__ setup.cfg pyproject.toml README.md LICENSE CITATION.cff lit_compress | tar x -C "$work/source"
"$work/tools/bin/python" -m build --outdir dist "$work/source" > "$work/build.txt" || { cat "$work/build.txt"; exit 1; }
"$work/tools/bin/twine" check --strict dist/*
"$work/tools/bin/python" .ci/contents.py dist

echo "the wheel, with all that it depends on"
"${PYTHON:-python3}" -m venv "$work/whole"
"$work/whole/bin/pip" install --quiet $index "$(echo dist/*.whl)[demo]"
"$work/whole/bin/pip" check
mkdir "$work/empty" && cd "$work/empty"
"$work/whole/bin/lit-compress" configs > /dev/null
"$work/whole/bin/lit-compress" fit --config quickstart.yaml > "$work/fit.txt" 2>&1 || { tail -30 "$work/fit.txt"; exit 1; }
artifact=$(dirname "$(find . -name card.json | head -1)")

echo "the source distribution, without torch"
"${PYTHON:-python3}" -m venv "$work/small"
"$work/small/bin/pip" install --quiet $index numpy onnxruntime
"$work/small/bin/pip" install --quiet $index --no-deps "$root"/dist/*.tar.gz
for folder in "$artifact" "$root/examples/digits_int8"; do
    "$work/small/bin/python" -c "import sys, lit_compress; print(lit_compress.load(sys.argv[1]).card)" "$folder"
done
