"""Tables over batches: overall values, ratios and their intervals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from arco_core.config.schema import SAMPLER_NAMES
from arco_core.sampling import make_sampler
from arco_core.variance import VarianceRow, batch_variances, check_stage, class_fields, compare_samplers
from tests.arco_core.variance.test_fields import batch, same_dropout, seeded, small_stage


def table(*batches: Tensor) -> dict[tuple[str, str, str], VarianceRow]:
    rows = compare_samplers(batches, ("background", "organ"), seeded())
    return {(row.class_name, row.quantity, row.sampler): row for row in rows}


def made_up(scale: float, sg: float = 0.5) -> Tensor:
    """A batch in which ns has the variance `scale`, sg a share of it, and every other sampler a tenth."""
    values = torch.full((3, 2, 2 + len(SAMPLER_NAMES)), scale / 10).double()
    values[..., 0], values[..., 1] = 50 * scale, 100.0
    values[..., 2], values[..., 3] = scale, sg * scale
    return values


def test_ratios_are_of_means_over_batches() -> None:
    rows = table(made_up(1.0, sg=0.2), made_up(3.0, sg=0.6))
    sg = rows["organ", "loss", "sg"]
    assert sg.to_ns.value == pytest.approx((0.2 + 1.8) / 4.0)
    assert sg.to_ns.low == pytest.approx(0.2) and sg.to_ns.high == pytest.approx(0.6)
    assert sg.variance == pytest.approx(1.0) and sg.relative_error == pytest.approx(0.1)
    assert sg.batches == 2 and sg.pixels == pytest.approx(100.0)
    hilbert = rows["overall", "gradient", "hilbert"].to_sg
    assert hilbert.value == pytest.approx(0.4 / 2.0)


def test_a_sampler_is_as_good_as_itself() -> None:
    rows = table(made_up(1.0), made_up(2.0))
    for ratio in (rows["organ", "loss", "ns"].to_ns, rows["organ", "loss", "sg"].to_sg):
        assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


def test_one_batch_has_no_interval() -> None:
    ratio = table(made_up(1.0))["organ", "loss", "sg"].to_ns
    assert (ratio.value, ratio.low, ratio.high) == (0.5, None, None)


def test_a_class_counts_only_where_it_takes_part() -> None:
    absent = made_up(5.0)
    absent[1] = math.nan
    rows = table(made_up(1.0), absent)
    assert rows["organ", "loss", "ns"].batches == 1 and rows["background", "loss", "ns"].batches == 2
    never = torch.full_like(absent, math.nan)
    assert table(never) == {}


def test_overall_is_the_mean_over_the_classes_that_take_part() -> None:
    """Against simulated estimates of L_contrast, and by adding up."""
    stage = check_stage(small_stage())
    images, labels = batch()
    with same_dropout():
        measured = batch_variances(stage, images, labels, queries=24, generator=seeded(3))
    assert measured.shape == (4, 2, 8) and not measured.isnan().any()
    torch.testing.assert_close(measured[3, :, 2:], measured[:3, :, 2:].sum(0) / 9)
    with same_dropout():
        fields = list(class_fields(stage, images, labels, seeded(3)))
    sampler, generator = make_sampler("hilbert"), seeded(1)
    estimates = torch.zeros(3000, dtype=torch.float64)
    gradient = torch.zeros_like(fields[0].gradient.mean())
    for field in fields:
        values = torch.zeros(field.mask.shape, dtype=torch.float64)
        values[field.mask] = field.loss.left[:, 0]
        position = sampler.pixels(field.mask.expand(3000, -1, -1, -1), 24, generator).position
        estimates += values.flatten()[position].mean(1) / 3
        gradient += field.gradient.mean() / 3
    pixels = torch.tensor([field.mask.sum() for field in fields]).double()
    torch.testing.assert_close(measured[:, 0, 0], torch.cat([pixels, pixels.sum(0, keepdim=True)]))
    column = 2 + SAMPLER_NAMES.index("hilbert")
    assert float(estimates.var()) == pytest.approx(float(measured[3, 0, column]), rel=0.1)
    assert float(estimates.mean()) ** 2 == pytest.approx(float(measured[3, 0, 1]), rel=1e-3)
    assert float(gradient.square().sum()) == pytest.approx(float(measured[3, 1, 1]), rel=1e-4)


def test_a_batch_of_one_class_has_no_contrastive_loss() -> None:
    stage = check_stage(small_stage())
    images, labels = batch()
    with same_dropout():
        measured = batch_variances(stage, images, torch.zeros_like(labels), queries=24, generator=seeded())
    assert measured.isnan().all()


def test_three_dimensions() -> None:
    """A V-Net on one patch: the samplers' groups and curve are the volume's own."""
    settings = ("network.kind=vnet", "data.image_size=[16,16,16]", "finetune.weights.equivariance=0")
    stage = check_stage(small_stage("finetune", *settings, "finetune.contrast.query_threshold=0"))
    labels = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    labels[:, 2:9, 3:12, 4:14], labels[:, 10:15, 2:14, 3:9] = 1, 2
    images = 0.3 * labels[:, None] + 0.3 * torch.rand(1, 1, 16, 16, 16, generator=seeded())
    with same_dropout():
        measured = batch_variances(stage, images, labels, queries=24, generator=seeded(3))
    assert measured[:3, 0, 0].tolist() == [float((labels == k).sum()) for k in range(3)]
    ns, sg, hilbert = (measured[:3, 0, 2 + SAMPLER_NAMES.index(name)] for name in ("ns", "sg", "hilbert"))
    assert (sg < ns).all() and (hilbert < ns).all()
