"""The settings of a training run: the names of the command's options, of a TOML file, and of
`model.fit`."""

from __future__ import annotations

from archdsl.frozen import Frozen


class Settings(Frozen):
    """What a run does. A step is one update of the weights.

    | about | settings |
    | --- | --- |
    | length of the run | `steps` |
    | batch | `batch` examples, `accumulate` of such batches per step, `length` positions |
    | optimizer | `optimizer`, `weight_decay`, `beta1`, `beta2`, `epsilon`, `momentum`, `clip` |
    | learning rate | `learning_rate`, `schedule`, `last_rate` as a share of the highest |
    | | `warmup` steps (a tenth of the run, at most 100), `decay_share` of the steps for wsd |
    | average of the weights | `ema`, its decay |
    | fine-tuning | `freeze`, patterns of paths |
    | memory | `recompute`: activations of layers are computed twice and not stored |
    | random numbers | `seed`, for the order of the data and for dropout |
    | evaluation | `eval_every` steps, on `eval_batches` batches |
    | checkpoints | `save_every` steps, the last `keep` |
    | samples | `sample_every` steps, from `sample_prompt` |
    """

    steps: int = 1000
    batch: int = 8
    accumulate: int = 1
    length: int | None = None
    optimizer: str = "adamw"
    learning_rate: float = 3e-4
    schedule: str = "cosine"
    warmup: int | None = None
    last_rate: float = 0.1
    decay_share: float = 0.2
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    momentum: float = 0.95
    clip: float | None = 1.0
    ema: float | None = None
    freeze: tuple[str, ...] = ()
    recompute: bool = False
    seed: int = 0
    eval_every: int = 250
    eval_batches: int = 20
    save_every: int = 250
    keep: int = 2
    sample_every: int = 0
    sample_prompt: str = ""
