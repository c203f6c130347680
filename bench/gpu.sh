#!/usr/bin/env bash
# What a GPU changes: images a second, and the profile `gpu` from end to end. On an H200 that should be four minutes beside
# the installation, as estimated from the rate at 384 pixels; it has not run as a whole yet. With RECIPE=FOLDER, the
# variants of the recipe for a laptop follow for five minutes, and go on there the next time.
# Needs one NVIDIA GPU, `CXR_DATA` (or the data beside the checkout), Python 3.11 or newer with torch >= 2.11 and
# torchvision >= 0.26; what else is missing is installed without touching these two.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${OUT:-bench/gpu}"
mkdir -p "$out"

python - <<'PY'
import torch
assert torch.cuda.is_available(), "no GPU: torch.cuda.is_available() is false"
print(torch.__version__, torch.cuda.get_device_name())
PY
grep -vE '^(torch|torchvision|nvidia-|triton|cuda-|    #|#)' requirements.txt > "$out/others.txt"
pip install --quiet --no-deps -r "$out/others.txt" || echo "some packages could not be installed; going on with what is there"

bench() { timeout "$1" python -m "bench.$2" --device cuda --json "$out/$2.json" $3 || echo "bench.$2 $3: failed or out of time"; }
large="--profile gpu --model efficientnet_v2_s --size 384 --images 1024 --batch-size 64 --rounds 3"
bench 60 input "$large --compile false"
# The recipe for a GPU from end to end; without a file in WEIGHTS, from weights drawn at random.
bench 240 main "--once --profile gpu --set model.weights=${WEIGHTS:-none}"
[[ -z ${RECIPE:-} ]] || bench 300 recipe "--jobs $(($(nproc) - 2)) --minutes 4 --folder $RECIPE --out $out"
cp bench/RESULTS.md "$out/"
