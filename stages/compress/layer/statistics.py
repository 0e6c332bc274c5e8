"""Calibration statistics of a layer: Gram matrices, magnitudes, ranges, rescaled by transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.stage import Artifact
from stages.compress.transforms.smoothquant import rescale_gram
from stages.weights.tensor_content import reader


class Statistics:
    """Statistics by module name; each is read when asked for, and not kept.

    A module reads what its *leader* has: the first of the modules that see the same tensor.
    """

    def __init__(
        self,
        artifacts: Mapping[str, Artifact],
        device: str,
        *,
        rotated: Callable[[str, Tensor], Tensor] | None = None,
    ) -> None:
        """`rotated`: makes a Gram matrix, read for the leader of this name, a rotated model's."""
        self._device = device
        self._rotated = rotated
        self._files = {k: reader(a, f"{k}.safetensors") for k, a in artifacts.items()}
        metas = [artifact.meta for artifact in artifacts.values()]
        self._leaders: dict[str, str] = {}
        self._tokens: dict[str, int] = {}
        for meta in metas:
            self._leaders.update(meta["groups"])
            self._tokens.update(meta["tokens"])
        self._divisors: dict[str, Tensor] = {}

    def leader(self, module: str) -> str:
        """The module that stands for all that see the same input; itself where unknown."""
        return self._leaders.get(module, module)

    def tokens(self, module: str) -> int:
        """How many tokens were seen at the input of `module`."""
        return self._tokens.get(self.leader(module), 0)

    def divide(self, module: str, s: Tensor) -> None:
        """Say that the inputs that `module` sees are now divided by `s` [in]."""
        leader = self.leader(module)
        before = self._divisors.get(leader)
        self._divisors[leader] = s if before is None else before * s

    @contextmanager
    def divided(self, module: str, s: Tensor) -> Iterator[None]:
        """Context in which the inputs that `module` sees are divided by `s` [in] as well."""
        leader = self.leader(module)
        before = self._divisors.get(leader)
        self.divide(leader, s)
        try:
            yield
        finally:
            if before is None:
                del self._divisors[leader]
            else:
                self._divisors[leader] = before

    def gram(self, module: str) -> Tensor | None:
        """Sum of x x^T, float32 [in, in] on the device; None where no token was seen."""
        H = self._read("gram", module)
        if H is not None and self._rotated is not None:
            H = self._rotated(self.leader(module), H)
        s = self._divisors.get(self.leader(module))
        return H if H is None or s is None else rescale_gram(H, s.to(H.device))

    def absmax(self, module: str) -> Tensor | None:
        """Largest magnitude by channel, float32 [in]; None where no token was seen."""
        return self._by_channel("absmax", module)

    def absmean(self, module: str) -> Tensor | None:
        """Mean magnitude by channel, float32 [in]; None where no token was seen."""
        return self._by_channel("absmean", module)

    def rows(self, module: str) -> Tensor | None:
        """A sample of the inputs, float32 [n, in]; None where no token was seen."""
        return self._by_channel("rows", module)

    def range(self, module: str) -> Tensor | None:
        """Smallest and largest input of every batch, float32 [n, 2]; None where none was seen.

        After a transform only the largest magnitude is known: one row, symmetric about zero.
        """
        if self.leader(module) in self._divisors:
            absmax = self.absmax(module)
            return None if absmax is None else torch.stack((-absmax.max(), absmax.max()))[None]
        return self._read("range", module)

    def histogram(self, module: str) -> Tensor | None:
        """Values seen and how often, float64 [k, 2]; None where no token was seen.

        Raises ValueError after a transform, of which a histogram cannot tell the effect.
        """
        if self.leader(module) in self._divisors:
            raise ValueError(f"the inputs of {module} were transformed")
        return self._read("histogram", module, dtype=torch.float64)

    def named(self, kind: str, module: str) -> Tensor | None:
        """Any statistic by name, a plugin's too (float32, as stored); None where no token was seen.

        Raises ValueError for a plugin's after a transform, whose effect on it is not known.
        """
        own = {
            "absmax": self.absmax,
            "absmean": self.absmean,
            "rows": self.rows,
            "range": self.range,
            "histogram": self.histogram,
        }
        if kind in own:
            return own[kind](module)
        if self.leader(module) in self._divisors:
            raise ValueError(f"the inputs of {module} were transformed after {kind} was gathered")
        return self._read(kind, module)

    def _by_channel(self, kind: str, module: str) -> Tensor | None:
        """A statistic [..., in] that is divided as the inputs are."""
        found = self._read(kind, module)
        s = self._divisors.get(self.leader(module))
        return found if found is None or s is None else found / s.to(found.device)

    def _read(self, kind: str, module: str, dtype: torch.dtype = torch.float32) -> Tensor | None:
        leader = self.leader(module)
        if kind not in self._files:
            raise KeyError(f"statistic {kind} was not asked for")
        if self.tokens(module) == 0:
            return None
        return self._files[kind].read([leader], device=self._device)[leader].to(dtype)
