#!/usr/bin/env bash
# Molecules similar to a given one (default: aspirin), from a trained Transformer: by greedy search,
# then the best five of a beam search.
#
#   pip install --no-deps annalog==1.0.6   # includes the weights
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PWD/.venv/bin:$PATH

molecule=${1:-CC(=O)Oc1ccccc1C(=O)O}
package=package:annalog/ckpt_and_vocab
for beams in 1 5; do
  echo "beams: $beams"
  archdsl translate annalog.arch "$molecule" --beams "$beams" \
    --weights "$package/Lev_extended.pt" \
    --vocab "$package/stereo_experiment_vocab_ttf.pkl"
done
