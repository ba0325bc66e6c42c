"""The loss of a model, all its gradients, and the losses of 50 steps are those of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tinygrad import Tensor

import archdsl
from archdsl.backend.optimizers import Rule
from archdsl.execution import inputs
from archdsl.execution.train_step import TrainStep
from archdsl.training.schedules import learning_rate
from archdsl.training.settings import Settings
from tests.reference import our_names
from tests.reference.agreement import TOLERANCE, apart
from tests.reference.torch_models import GPT, settled, torch

pytestmark = pytest.mark.reference("torch")


def test_the_gradients_of_a_gpt_agree(tmp_path: Path) -> None:
    sizes = {"vocab": 13, "context": 7, "D": 12, "heads": 3, "depth": 2}
    theirs = settled(GPT(**sizes), seed=0)
    ours = archdsl.compile("gpt.arch", device="CPU", **sizes)
    np.savez(tmp_path / "gpt.npz", **our_names.gpt_weights(theirs))
    ours.load(tmp_path / "gpt.npz")

    tokens = np.random.default_rng(0).integers(0, 13, (3, 6))
    given = torch.from_numpy(tokens)
    predicted = theirs(given)[:, :-1].flatten(0, 1)  # [B (T - 1), vocab]
    expected = torch.nn.functional.cross_entropy(predicted, given[:, 1:].flatten())
    expected.backward()
    for weight in theirs.parameters():
        weight.data = weight.grad
    loss = ours.loss(tokens=tokens)
    loss.backward()
    # All at once, or each would compute the whole backward pass for itself.
    Tensor.realize(loss, *(weight.grad for weight in ours.parameters.values()))
    assert apart(loss, expected.detach()) <= TOLERANCE
    gradients = our_names.gpt_weights(theirs)
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for path, right in gradients.items():
        distance = np.abs(ours.parameters[path].grad.numpy() - right).max()
        # The keys' biases move all scores of a query alike: their gradients are rounding alone.
        assert distance <= TOLERANCE * np.abs(right).max() + 1e-7 * largest, path


# -- whole runs --

Batch = dict[str, NDArray[Any]]
RUN = Settings(steps=50, warmup=5, learning_rate=5e-3)
CLOSE = 1e-3  # of a loss


class Task:
    """A small model of transformers, random batches, and its loss."""

    def __init__(
        self,
        model: Callable[[], Any],
        batch: Callable[[np.random.Generator], Batch],
        loss: Callable[[Any, dict[str, Any]], Any],
    ):
        self.model, self.batch, self.loss = model, batch, loss


def counted(vocab: int, length: int) -> Callable[[np.random.Generator], Batch]:
    """Four rows of tokens that count in steps of 1 or 2: there is something to learn."""

    def batch(random: np.random.Generator) -> Batch:
        first, by = random.integers(vocab, size=(4, 1)), random.integers(1, 3, size=(4, 1))
        return {"tokens": (first + by * np.arange(length)) % vocab}

    return batch


def gpt2() -> Any:
    import transformers

    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=23, n_positions=16, n_embd=32, n_layer=1, n_head=4, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip


def mamba2() -> Any:
    import transformers

    return transformers.Mamba2ForCausalLM(
        transformers.Mamba2Config(
            vocab_size=23, hidden_size=16, num_hidden_layers=2, num_heads=4, head_dim=8,
            state_size=8, n_groups=2, chunk_size=8, expand=2, conv_kernel=4, pad_token_id=None,
            bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip


def vit() -> Any:
    import transformers

    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            image_size=16, patch_size=8, num_labels=5, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def marian() -> Any:
    import transformers

    return transformers.MarianMTModel(
        transformers.MarianConfig(
            vocab_size=23, d_model=32, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
            decoder_ffn_dim=48, max_position_embeddings=16, dropout=0.0, attention_dropout=0.0,
            activation_dropout=0.0, pad_token_id=22, eos_token_id=0, decoder_start_token_id=22,
        )
    )  # fmt: skip


def images(random: np.random.Generator) -> Batch:
    """Six images whose brightness tells their class."""
    label = random.integers(5, size=6)
    noise = random.standard_normal((6, 3, 16, 16))
    return {
        "pixels": (noise + label.reshape(-1, 1, 1, 1) - 2).astype(np.float32),
        "label": label,
    }


def pairs(random: np.random.Generator) -> Batch:
    """Sources of unequal lengths with padding, and targets that repeat their beginning."""
    source = counted(22, 9)(random)["tokens"]
    for row, length in enumerate((9, 7, 8, 5)):
        source[row, length:] = 22
    # Not the padding: transformers does not train its row of the table.
    target = np.concatenate([np.zeros((4, 1), np.int64), source[:, :5]], 1)
    return {"source": source, "target": target}


def next_token(theirs: Any, given: dict[str, Any]) -> Any:
    return theirs(input_ids=given["tokens"], labels=given["tokens"]).loss


def of_class(theirs: Any, given: dict[str, Any]) -> Any:
    return theirs(pixel_values=given["pixels"], labels=given["label"]).loss


def translated(theirs: Any, given: dict[str, Any]) -> Any:
    source, target = given["source"], given["target"]
    mask = (source != 22).long()
    found = theirs(input_ids=source, attention_mask=mask, decoder_input_ids=target)
    predicted = found.logits[:, :-1].flatten(0, 1)  # [B (T - 1), vocab]
    return torch.nn.functional.cross_entropy(predicted, target[:, 1:].flatten())


TASKS = {
    "gpt2": Task(gpt2, counted(23, 12), next_token),
    "vit": Task(vit, images, of_class),
    "marian": Task(marian, pairs, translated),
    "mamba2": Task(mamba2, counted(23, 12), next_token),
}


def losses_of_pytorch(theirs: Any, task: Task, batches: list[Batch], rule: Rule) -> list[float]:
    """The losses of each step. A tensor with one axis that is longer than 1 does not decay."""
    trained = [each for each in theirs.parameters() if each.requires_grad]
    groups = [
        {"params": [w for w in trained if (w.squeeze().ndim > 1) == decays], "weight_decay": by}
        for decays, by in ((True, rule.weight_decay), (False, 0.0))
    ]
    betas = (rule.beta1, rule.beta2)
    optimizer = torch.optim.AdamW(groups, betas=betas, eps=rule.epsilon)
    found = []
    for step, batch in enumerate(batches):
        loss = task.loss(theirs, {name: torch.from_numpy(each) for name, each in batch.items()})
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(RUN, step)
        optimizer.step()
        found.append(loss.item())
    return found


def curves(name: str, folder: Path) -> tuple[list[float], list[float]]:
    """The losses of each step, of archdsl and of PyTorch."""
    task, random = TASKS[name], np.random.default_rng(1)
    torch.manual_seed(0)
    theirs = task.model().train()
    theirs.save_pretrained(folder)
    few = [task.batch(random) for _ in range(4)]
    batches = [few[number % 4] for number in range(RUN.steps)]
    rule = Rule()
    right = losses_of_pytorch(theirs, task, batches, rule)

    ours = archdsl.from_pretrained(folder, device="CPU")
    # What transformers does not train: Marian's bias of the logits.
    frozen = frozenset(path for path in ours.weights if path == "add_bias.weight")
    step = TrainStep(ours.executable, rule, frozen=frozen, clip=1.0)
    found = []
    for number, batch in enumerate(batches):
        checked = inputs.check(ours.graph, batch, labels=True)
        found.append(step([checked], learning_rate(RUN, number), (0, number)).loss)
    return found, right


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name == "gpt2" else pytest.mark.slow)
        for name in TASKS
    ],
)
@pytest.mark.reference("transformers")
def test_the_losses_of_50_steps_agree(name: str, tmp_path: Path) -> None:
    found, right = curves(name, tmp_path)
    assert right[-1] < 0.9 * right[0]
    assert max(abs(a - b) / abs(b) for a, b in zip(found, right, strict=True)) <= CLOSE
