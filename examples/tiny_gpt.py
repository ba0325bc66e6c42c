"""The Python interface with a tiny GPT: forward pass, training, saving and loading."""

import tempfile
from pathlib import Path

import numpy as np

import archdsl

sizes = {"vocab": 32, "context": 24, "D": 48, "heads": 4, "depth": 2}
model = archdsl.compile("gpt.arch", device="CPU", **sizes)
print(f"{model.graph.name}: {model.cost().params:,} parameters")

# Each sequence counts upwards from a random number, so the next token is predictable.
rng = np.random.default_rng(0)
tokens = (rng.integers(32, size=(16, 1)) + np.arange(12)) % 32  # [B, T]

for step in range(31):
    found = model.step({"tokens": tokens}, rate=3e-3)
    if step % 10 == 0:
        print(f"step {step:2d}  loss {found.loss:.3f}")

logits = model(tokens=tokens)["logits"].numpy()  # [B, T, vocab]
right = (logits[:, :-1].argmax(-1) == tokens[:, 1:]).mean()
print(f"next tokens predicted: {right:.0%}")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "tiny.safetensors"
    model.save(path)
    again = archdsl.compile("gpt.arch", device="CPU", **sizes)
    again.load(path)
    same = np.array_equal(again(tokens=tokens)["logits"].numpy(), logits)
    print(f"loaded again, the logits are {'the same' if same else 'different'}")
