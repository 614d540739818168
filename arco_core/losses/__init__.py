"""The terms of the two stages' losses, each a pure function of tensors."""

from arco_core.losses.contrastive import contrastive_loss, query_losses
from arco_core.losses.equivariance import equivariance_loss
from arco_core.losses.info_nce import info_nce_loss, neighbor_nce_loss
from arco_core.losses.neighbors import neighbor_loss, released_neighbor_loss
from arco_core.losses.nt_xent import nt_xent_loss
from arco_core.losses.regression import regression_loss
from arco_core.losses.relational import relational_loss
from arco_core.losses.supervised import dice_loss, supervised_loss
from arco_core.losses.unsupervised import unsupervised_loss
from arco_core.losses.vicreg import vicreg_loss

__all__ = [
    "contrastive_loss",
    "dice_loss",
    "equivariance_loss",
    "info_nce_loss",
    "neighbor_loss",
    "neighbor_nce_loss",
    "nt_xent_loss",
    "query_losses",
    "regression_loss",
    "relational_loss",
    "released_neighbor_loss",
    "supervised_loss",
    "unsupervised_loss",
    "vicreg_loss",
]
