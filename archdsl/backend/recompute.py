"""Gradients with activations that are computed again instead of stored (Chen et al. 2016).

Forward, the layers of a stack are computed one by one, and only their inputs are stored.
Backward, from the last layer to the first, a layer is computed again from its input, and
differentiated. In both directions two layers of each kind are traced, and their calls are
replayed for the others, so the time to compile does not grow with the depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tinygrad import Tensor, UOp, dtypes

from archdsl.backend.layer_replay import each_layer
from archdsl.backend.tensors import in_buffer
from archdsl.backend.tinygrad_devices import split_like
from archdsl.frozen import Frozen

Own = Callable[[int], Mapping[str, Tensor]]


class Layers(Frozen):
    """A stack in a tape: the kind of each layer, the function that computes layer i from its
    input, the tensors that only layer i uses, and the inputs of all layers and the output."""

    kinds: Sequence[int]
    trace: Callable[[int, Tensor], Tensor]
    own: Own
    values: Sequence[Tensor]


class Cut(Frozen):
    """A value before a stack: how it is computed, and the buffer that it was computed into."""

    expression: UOp
    buffer: UOp


class Tape:
    """The stacks of one forward pass, for its gradient.

    - `weights`: those that are trained, by path, and `gradients`: the float32 buffers for their
      gradients.
    - `adds`: a truth value []: whether to add to what the buffers hold. None: never.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        device: str | tuple[str, ...],
        adds: Tensor | None = None,
    ):
        self._weights = {each.uop.base: path for path, each in weights.items()}
        self._gradients, self._device, self._adds = gradients, device, adds
        self._entries: list[Layers | Cut] = []
        self._started: set[str] = set()  # the paths whose buffers hold a part of the gradient
        # The gradients of values that were cut off, by the buffer of the value; None before.
        self._sums: dict[UOp, Tensor | None] = {}

    # -- forward --

    def depends(self, value: Tensor) -> bool:
        """Whether a gradient flows from a value to weights."""
        if not value.is_floating_point():
            return False
        return any(each in self._weights or each in self._sums for each in value.uop.toposort())

    def cut(self, value: Tensor) -> Tensor:
        """A value in a buffer of its own; its gradient is summed up over all of its uses."""
        base = value.uop.base
        if base in self._sums:
            return value
        depends, expression = self.depends(value), value.uop
        stored = value.clone().realize()
        if depends:
            self._entries.append(Cut(expression, stored.uop.base))
            self._sums[stored.uop.base] = None
        return stored

    def stack(
        self,
        kinds: Sequence[int],
        x: Tensor,
        trace: Callable[[int, Tensor], Tensor],
        own: Own,
    ) -> Tensor:
        """The output of layers for x; see `run_layers`. Outer values must have been cut."""
        values = list(each_layer(Tensor.realize, kinds, self.cut(x), trace, own))
        for each in values[1:]:
            self._sums.setdefault(each.uop.base, None)
        self._entries.append(Layers(kinds, trace, own, values))
        return values[-1]

    # -- backward --

    def backward(self, loss: Tensor, *others: Tensor) -> None:
        """Writes the gradients of a loss [] to the buffers, and computes `others`."""
        _, changed = self._differentiate(loss, None)
        _compute(*others, *changed)
        while self._entries:
            match self._entries.pop():
                case Layers() as layers:
                    self._layers(layers)
                case Cut() as cut:
                    upstream = self._sums.pop(cut.buffer)
                    if upstream is not None:
                        _, changed = self._differentiate(Tensor(cut.expression), upstream)
                        _compute(*changed)
        _compute(*self._without_gradient(self._gradients))

    def _layers(self, layers: Layers) -> None:
        """The gradients of a stack, from its last layer to its first."""
        values, count = layers.values, len(layers.kinds)
        upstream = self._sums.pop(values[-1].uop.base)
        if upstream is None:
            return
        backward = _Backward(self, layers)
        kinds = list(reversed(layers.kinds))
        upstream = upstream.reshape(values[-1].shape)
        for each in each_layer(Tensor.realize, kinds, upstream, backward.trace, backward.own):
            upstream = each
        for i in range(count):
            self._started.update(self.paths(layers.own(i)))
        for value in values[1:-1]:
            self._sums.pop(value.uop.base, None)
        first = values[0].uop.base
        if first in self._sums:
            known, upstream = self._sums[first], upstream.reshape(first.shape)
            # Added to a copy: the buffer may hold the gradient of another value too.
            both = upstream if known is None else known + upstream
            self._sums[first] = both.clone().realize()

    def layer(self, layers: Layers, i: int, upstream: Tensor) -> Tensor:
        """The gradient of the input of layer i; adds those of all that it uses."""
        x, own = layers.values[i], layers.own(i)
        found, changed = self._differentiate(layers.trace(i, x), upstream, x)
        assert found is not None
        _compute(found, *changed, *self._without_gradient(self.paths(own)))
        return found

    def _differentiate(
        self, value: Tensor, upstream: Tensor | None, x: Tensor | None = None
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Adds the gradients of all weights and cut values that a value uses.

        Gives the gradient of x, and the tensors to realize.
        """
        used = [u for u in value.uop.toposort() if u in self._weights or u in self._sums]
        base = None if x is None else x.uop.base
        if base is not None and base not in used:
            used.append(base)
        if not used:
            return None, []
        if upstream is not None:
            upstream = upstream.reshape(value.shape)
        changed, own = list[Tensor](), None
        found = value.gradient(*map(Tensor, used), gradient=upstream)
        for each, gradient in zip(used, found, strict=True):
            if x is not None and each is base:
                own = in_buffer(gradient.reshape(x.shape), self._device)
            elif each in self._weights:
                changed.append(self._written(self._weights[each], gradient))
            elif (known := self._sums[each]) is None:
                self._sums[each] = known = gradient.clone()
                changed.append(known)
            else:
                changed.append(known.assign(known + gradient))
        return own, changed

    def _written(self, path: str, gradient: Tensor) -> Tensor:
        """The buffer of a weight's gradient, with a part of the gradient added."""
        buffer = self._gradients[path]
        whole = split_like(gradient.reshape(buffer.shape).cast(dtypes.float32), buffer)
        if path in self._started:
            whole = whole + buffer
        elif self._adds is not None:
            whole = whole + self._adds.where(buffer, 0)
        self._started.add(path)
        return buffer.assign(whole)

    def _without_gradient(self, paths: Iterable[str]) -> list[Tensor]:
        """The buffers of those weights that the loss does not use."""
        missing = [path for path in paths if path not in self._started]
        return [
            self._written(path, Tensor.zeros(*self._gradients[path].shape, device=self._device))
            for path in missing
        ]

    # -- what a layer alone uses --

    def paths(self, own: Mapping[str, Tensor]) -> list[str]:
        """The trained weights among the tensors of a layer."""
        bases = (each.uop.base for each in own.values())
        return [self._weights[base] for base in bases if base in self._weights]

    def with_gradients(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a layer, with the buffers of their gradients.

        The names say whether the layer sets a buffer or adds to it: layers that differ in this
        are not alike.
        """
        found = dict(own)
        for name, each in own.items():
            if (path := self._weights.get(each.uop.base)) is not None:
                how = "add to" if path in self._started else "set"
                found[f"{how} the gradient of {name}"] = self._gradients[path]
        return found


def _compute(*tensors: Tensor) -> None:
    if tensors:
        Tensor.realize(*tensors)


class _Backward(Frozen):
    """The backward pass of a stack as layers to run, the last one first."""

    tape: Tape
    layers: Layers

    def trace(self, place: int, upstream: Tensor) -> Tensor:
        return self.tape.layer(self.layers, self._number(place), upstream)

    def own(self, place: int) -> dict[str, Tensor]:
        i = self._number(place)
        found = self.tape.with_gradients(self.layers.own(i))
        return found | {"the input of the layer": self.layers.values[i]}

    def _number(self, place: int) -> int:
        return len(self.layers.kinds) - 1 - place
