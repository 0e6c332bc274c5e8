"""The share of a mixture's experts that may be pruned. No library is imported: configs check it."""

from __future__ import annotations

from pipeline.errors import UserError


def check_share(sparsity: float) -> None:
    """Raise UserError unless `sparsity` is a share of experts: more than 0 and less than 1."""
    if not 0 < sparsity < 1:
        raise UserError(
            f"sparsity is {sparsity}",
            remedy="give the share of experts to prune: more than 0 and less than 1",
        )
