"""The steps of the three stages, naively: METHOD's equations, dense maps, loops over classes and pixels.

Nothing of `arco_core` computes here but the networks themselves. Constants are METHOD's, not the
configuration's. What is random is what the stage drew (`recorded.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arco_core.stages import Stage
from tests.arco_core.representation.test_sampled_equals_dense import dense
from tests.arco_core.stages.recorded import Draws

STRONG, WEAK, QUERY = 0.97, 0.7, 0.3
TAU, TAU_STUDENT, TAU_TEACHER = 0.5, 0.1, 0.01
WEIGHTS = {"supervised": 1.0, "contrast": 0.01, "unsupervised": 1.0, "neighbors": 1.0, "equivariance": 1.0}
NEIGHBORS, IMAGES = 5, 36
"""Nearest neighbours in L_nn, and the images that its bank, and stage one's, hold."""
FRESH = 5
CELLS, WINDOW, STRIDE = 32, 8, 4

Terms = dict[str, Tensor]


def read(maps: Tensor, grid: Tensor, mode: str = "bilinear", padding: str = "border") -> Tensor:
    return F.grid_sample(maps, grid.to(maps.dtype), mode=mode, padding_mode=padding, align_corners=True)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def supervised(logits: Tensor, labels: Tensor) -> Tensor:
    """½ (Dice + cross-entropy)."""
    probability, classes = logits.softmax(1), logits.shape[1]
    dice = []
    for c in range(classes):
        p, g = probability[:, c], (labels == c).double()
        dice.append(1 - (2 * (p * g).sum() + 1e-5) / ((p * p).sum() + g.sum() + 1e-5))
    own = torch.stack([probability[:, c][labels == c].log().sum() for c in range(classes)])
    return (sum(dice) / classes - own.sum() / labels.numel()) / 2


def weak_labeled(batch: Terms, draws: Draws) -> tuple[Tensor, Tensor]:
    """The weak view of the labelled images, and of their labels."""
    grid = draws.affine[0].result
    labels = read(batch["labeled_label"][:, None].double(), grid, "nearest")[:, 0].round().long()
    return read(batch["labeled_image"], grid), labels


def supervised_step(stage: Stage, batch: Terms, draws: Draws) -> Terms:
    images, labels = weak_labeled(batch, draws)
    return {"loss": supervised(stage.student(images), labels)}


# Stage two


@dataclass
class Banks:
    """What stage two remembers: keys of each class, oldest first, and of images."""

    classes: list[list[Tensor]]
    room: int
    images: list[Tensor] = field(default_factory=list)
    last: Known | None = None
    """What the last step knew of its pixels."""


@dataclass
class Known:
    """A step of stage two, at every pixel."""

    images: Tensor
    labels: Tensor
    """(B, H, W): labels, then pseudo-labels."""
    confidence: Tensor
    probability: Tensor
    """(B, K, H, W) of the teacher, on what the student sees."""
    student: Tensor
    """(B, H, W, D) representation of every pixel."""
    teacher: Tensor


def finetune_step(stage: Stage, batch: Terms, draws: Draws, banks: Banks) -> Terms:
    """L_sup + λ1 L_contrast + λ2 L_unsup + λ3 L_nn + λ4 L_eqv, and each of them; feeds `banks`."""
    images, labels, confidence = mixed_views(stage, batch, draws)
    n = len(batch["labeled_image"])
    logits, pyramid = stage.student.forward_pyramid(images)
    with torch.no_grad():
        teacher_logits, teacher_pyramid = stage.teacher.forward_pyramid(images)
        teacher = dense(stage.teacher_head, teacher_pyramid).movedim(1, -1)
    student = dense(stage.student_head, pyramid).movedim(1, -1)
    known = Known(images, labels, confidence, teacher_logits.softmax(1), student, teacher)
    banks.last = known
    terms = {
        "supervised": supervised(logits[:n], labels[:n]),
        "unsupervised": unsupervised(logits[n:], labels[n:], confidence[n:]),
        "contrast": contrast(known, draws, banks),
        "neighbors": neighbors(student[n:].mean((1, 2)), teacher[n:].mean((1, 2)), banks),
        "equivariance": equivariance(stage.student, known, logits.detach(), draws),
    }
    return terms | {"loss": sum(WEIGHTS[name] * term for name, term in terms.items())}


def mixed_views(stage: Stage, batch: Terms, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Images of the student, labels and pseudo-labels from the weak view, confidence; CutMix over them."""
    labeled, labels = weak_labeled(batch, draws)
    weak = read(batch["unlabeled_image"], draws.affine[1].result)
    torch.testing.assert_close(draws.jitter[0].arguments[0], weak)
    strong, box = draws.jitter[0].result, draws.boxes[0].result
    with torch.no_grad():
        confidence, pseudo = stage.teacher(weak).softmax(1).max(1)
    mixed: list[list[Tensor]] = [[], [], []]
    for i in range(len(weak)):
        other = (i + 1) % len(weak)
        for out, maps in zip(mixed, (strong[:, 0], pseudo, confidence), strict=True):
            out.append(torch.where(box[i], maps[other], maps[i]))
    views = [torch.stack(part) for part in mixed]
    certain = torch.ones_like(labels, dtype=torch.float64)
    return (
        torch.cat([labeled, views[0][:, None]]),
        torch.cat([labels, views[1]]),
        torch.cat([certain, views[2]]),
    )


def unsupervised(logits: Tensor, labels: Tensor, confidence: Tensor) -> Tensor:
    losses = []
    for image, label, sure in zip(logits.log_softmax(1), labels, confidence, strict=True):
        entropy = -image.gather(0, label[None]).mean()
        losses.append((sure >= STRONG).double().mean() * entropy)
    return sum(losses) / len(losses)


def contrast(known: Known, draws: Draws, banks: Banks) -> Tensor:
    """E.2, query by query; the stage must have drawn from the masks that METHOD asks for."""
    (query_mask, queries), (key_mask, keys) = draws.queries, draws.keys
    ranks = draws.ranks[0].result.view(len(banks.classes), -1, draws.ranks[0].result.shape[1])
    losses, fresh = [], []
    for c in range(len(banks.classes)):
        member = (known.labels == c) & (known.confidence >= WEAK)
        hard = member & (known.probability[:, c] > QUERY)
        assert torch.equal(query_mask[c], hard), f"queries of class {c}"
        certain = member & (known.probability[:, c] >= WEAK)
        assert torch.equal(key_mask[c], certain), f"keys of class {c}"
        rows = known.teacher.flatten(0, 2)[keys.position[c]]
        fresh.append(list(rows / rows.norm(dim=1, keepdim=True)) if certain.any() else [])
        others = [key for other, bank in enumerate(banks.classes) if other != c for key in bank]
        if not hard.any() or not others:
            continue
        positive = known.teacher[member].mean(0)
        chosen = known.student.flatten(0, 2)[queries.position[c]]
        total = chosen.new_zeros(())
        for i, query in enumerate(chosen):
            negative = torch.stack([others[r] for r in ranks[c, i * len(ranks[c]) // len(chosen)].tolist()])
            up = (cosine(query, positive) / TAU).exp()
            total = total - (up / (up + (cosine(query, negative) / TAU).exp().sum())).log()
        losses.append(total / len(chosen))
    for bank, new in zip(banks.classes, fresh, strict=True):
        bank[:] = [*bank, *new][-banks.room :]
    return sum(losses) / len(losses) if len(losses) > 1 else 0.0 * known.student.sum()


def neighbors(student: Tensor, teacher: Tensor, banks: Banks) -> Tensor:
    bank, total = list(banks.images), 0.0 * student.sum()
    banks.images = [*bank, *teacher][-IMAGES:]
    if len(bank) < NEIGHBORS:
        return total
    for image in student:
        nearest = sorted(bank, key=lambda key: -float(cosine(image.detach(), key)))[:NEIGHBORS]
        total = total + sum(2 - 2 * cosine(image, key) for key in nearest)
    return total / (NEIGHBORS * len(student))


def equivariance(student: nn.Module, known: Known, logits: Tensor, draws: Draws) -> Tensor:
    """On confident foreground, KL(warped prediction || prediction for the warped image)."""
    grid = draws.warp[0].result
    sure = ((known.labels > 0) & (known.confidence >= WEAK)).double()
    weight = read(sure[:, None], grid, padding="zeros")[:, 0]
    target = read(logits, grid, padding="zeros").log_softmax(1)
    prediction = student(read(known.images, grid, padding="zeros")).log_softmax(1)
    divergence = (target.exp() * (target - prediction)).sum(1)
    images = [(w * d).sum() / (w.sum() + 1e-7) for w, d in zip(weight, divergence, strict=True)]
    return sum(images) / len(images)


# Stage one


@dataclass
class Mined:
    """Earlier teacher embeddings: of images, and of each window."""

    whole: list[Tensor] = field(default_factory=list)
    windows: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)


def pretrain_step(stage: Stage, batch: Terms, draws: Draws, mined: Mined) -> Terms:
    """L_inst^global + L_inst^local + L_sup, and each of them; feeds `mined`."""
    first, second, labels = two_views(batch, draws)
    framework = stage.framework
    logits, pyramid = stage.student.forward_pyramid(first)
    with torch.no_grad():
        teacher_logits, teacher_pyramid = stage.teacher.forward_pyramid(second)
    heads = framework.student_projector, framework.teacher_projector
    w1 = layers(framework.global_predictor)(layers(heads[0]["global_"])(pyramid[0].mean((2, 3))))
    v2 = layers(heads[1]["global_"])(teacher_pyramid[0].mean((2, 3)))
    terms = {
        "supervised": supervised(logits[: len(labels)], labels),
        "global": distillation(w1, v2, mined.whole),
    }
    mined.whole = [*mined.whole, *v2[-FRESH:]][-IMAGES:]
    project, predict = layers(heads[0]["local"]), layers(framework.local_predictor)
    cells = predict(project(cell_means(logits))), layers(heads[1]["local"])(cell_means(teacher_logits))
    local = []
    for row in range(0, CELLS - WINDOW + 1, STRIDE):
        for column in range(0, CELLS - WINDOW + 1, STRIDE):
            w1, v2 = (c[:, row : row + WINDOW, column : column + WINDOW].flatten(1) for c in cells)
            bank = mined.windows.setdefault((row, column), [])
            local.append(distillation(w1, v2, bank))
            bank[:] = [*bank, *v2[-FRESH:]][-IMAGES:]
    terms["local"] = sum(local) / len(local)
    return terms | {"loss": sum(terms.values())}


def two_views(batch: Terms, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """The student's view, the teacher's, and the labels: of the same pixels, jittered apart."""
    labeled, labels = weak_labeled(batch, draws)
    unlabeled = read(batch["unlabeled_image"], draws.affine[1].result)
    torch.testing.assert_close(draws.jitter[0].arguments[0], unlabeled)
    torch.testing.assert_close(draws.jitter[1].arguments[0], torch.cat([labeled, unlabeled]))
    return torch.cat([labeled, draws.jitter[0].result]), draws.jitter[1].result, labels


def layers(mlp: nn.Module) -> Callable[[Tensor], Tensor]:
    """Two layers with a non-linearity between them."""
    first, last = (layer for layer in mlp.children() if isinstance(layer, nn.Linear))

    def apply(x: Tensor) -> Tensor:
        hidden = (x @ first.weight.T + first.bias).clamp_min(0)
        return hidden @ last.weight.T + last.bias

    return apply


def cell_means(logits: Tensor) -> Tensor:
    """(B, cells, cells, K) mean logits of each cell."""
    side = logits.shape[2] // CELLS
    split = logits.unflatten(3, (CELLS, side)).unflatten(2, (CELLS, side))
    return split.mean((3, 5)).movedim(1, -1)


def distillation(w1: Tensor, v2: Tensor, bank: Sequence[Tensor]) -> Tensor:
    """KL(u_t || u_s) over the mined views; slots not filled yet are keys at right angles to all."""
    total = w1.new_zeros(())
    empty = w1.new_zeros(IMAGES - len(bank))
    for student, teacher in zip(w1, v2.detach(), strict=True):
        similar = [torch.cat([_cosines(x, bank), empty]) for x in (student, teacher)]
        u_s, u_t = (similar[0] / TAU_STUDENT).softmax(0), (similar[1] / TAU_TEACHER).softmax(0)
        total = total + torch.special.xlogy(u_t, u_t).sum() - (u_t * u_s.log()).sum()
    return total / len(w1)


def _cosines(x: Tensor, bank: Sequence[Tensor]) -> Tensor:
    return cosine(x, torch.stack(list(bank)).detach()) if bank else x.new_zeros(0)
