"""The terms of the two stages' losses, each a pure function of tensors."""

from arco_core.losses.contrastive import contrastive_loss, query_losses
from arco_core.losses.equivariance import equivariance_loss
from arco_core.losses.neighbors import neighbor_loss, released_neighbor_loss
from arco_core.losses.relational import relational_loss
from arco_core.losses.supervised import dice_loss, supervised_loss
from arco_core.losses.unsupervised import unsupervised_loss

__all__ = [
    "contrastive_loss",
    "dice_loss",
    "equivariance_loss",
    "neighbor_loss",
    "query_losses",
    "relational_loss",
    "released_neighbor_loss",
    "supervised_loss",
    "unsupervised_loss",
]
