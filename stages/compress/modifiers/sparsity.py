"""Options that pruning modifiers share: how much becomes zero, and in which pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.compress.modifiers.base import Pruner, one_of

if TYPE_CHECKING:
    from stages.compress.pruning.masks import Structure

DEFAULT = 0.5
OWL = "owl"
OWL_M, OWL_LMBDA = 5.0, 0.08
"""What OWL's options are where only the profile is said: those of its paper."""
PROFILE = ("sparsity_profile", "owl_m", "owl_lmbda")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sparsity(Pruner):
    """A share of zeros, or a pattern that implies it."""

    sparsity: float | None = None
    """The share of zeros, between 0 and 1; None: what the pattern says, and 0.5 without one."""
    mask_structure: str = "0:0"
    """zeros:of, such as 2:4; 0:0 for no pattern."""
    sparsity_profile: str | None = None
    """owl: layers with more outliers get fewer zeros (arXiv:2310.05175); None: all the same."""
    owl_m: float | None = None
    """How many times the mean score of its layer an outlier has; None with owl: 5."""
    owl_lmbda: float | None = None
    """Half of what shares of zeros differ by between layers; None with owl: 0.08."""

    def __post_init__(self) -> None:
        zeros, of = self._pattern()
        self._check_profile()
        if self.sparsity is None:
            return
        if not 0 < self.sparsity < 1:
            raise UserError(
                f"sparsity is {self.sparsity}", remedy="give more than 0 and less than 1"
            )
        if of and abs(self.sparsity - zeros / of) > 1e-6:
            raise UserError(
                f"sparsity is {self.sparsity}, but mask_structure {self.mask_structure} makes it "
                f"{zeros / of:g}",
                remedy="give one of them",
            )

    def _check_profile(self) -> None:
        """Raise UserError unless OWL's options go together; set those that are left out."""
        if self.sparsity_profile is None:
            for name in ("owl_m", "owl_lmbda"):
                if getattr(self, name) is not None:
                    raise UserError(
                        f"{name} is {getattr(self, name)} without sparsity_profile",
                        remedy="say sparsity_profile: owl, or leave it out",
                    )
            return
        one_of("sparsity_profile", self.sparsity_profile, (OWL,))
        if self._pattern()[1]:
            raise UserError(
                f"sparsity_profile is owl with mask_structure {self.mask_structure}, a pattern "
                "that has the same share of zeros in every layer",
                remedy="leave one of them out",
            )
        for name, value in (("owl_m", OWL_M), ("owl_lmbda", OWL_LMBDA)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        m, lmbda = float(self.owl_m or 0), float(self.owl_lmbda or 0)
        if not 0 < m < inf:
            raise UserError(f"owl_m is {self.owl_m}", remedy="give more than 0, such as 5")
        if not 0 < lmbda < 0.5:
            raise UserError(
                f"owl_lmbda is {self.owl_lmbda}",
                remedy="give more than 0 and less than 0.5, such as 0.08",
            )

    def said(self) -> Any:
        """As before there were profiles where there is none: keys and recipes stay the same."""
        options = super(Sparsity, self).said()
        return {k: v for k, v in options.items() if k not in PROFILE or v is not None}

    def for_layer(self, name: str, outliers: Mapping[str, float]) -> Sparsity:
        """The same with the share of zeros of layer `name`, from the outliers of all layers.

        Raises ValueError where a layer would keep nothing, or everything.
        """
        from stages.compress.pruning.owl import layer_sparsities

        if self.owl_lmbda is None:
            return self
        found = layer_sparsities(outliers, self.share, self.owl_lmbda)
        return replace(
            self, sparsity=found[name], sparsity_profile=None, owl_m=None, owl_lmbda=None
        )

    def _pattern(self) -> tuple[int, int]:
        parts = self.mask_structure.split(":")
        if len(parts) == 2 and all(part.isdecimal() for part in parts):
            zeros, of = int(parts[0]), int(parts[1])
            if zeros == of == 0 or 0 < zeros < of <= 256:
                return zeros, of
        raise UserError(
            f"mask_structure is {self.mask_structure!r}",
            remedy="give 0:0 for no pattern, or zeros:of, such as 2:4 for 2 zeros in every 4",
        )

    @property
    def share(self) -> float:
        """The share of zeros where there is no pattern."""
        return DEFAULT if self.sparsity is None else self.sparsity

    @property
    def structure(self) -> Structure:
        from stages.compress.pruning.masks import Structure

        zeros, of = self._pattern()
        return Structure(zeros=zeros, of=of)
