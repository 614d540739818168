"""What Kubernetes takes for names, labels, taints and images: rules that raise `ConfigError`."""

from __future__ import annotations

import re

from arco_core.config.errors import require

_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_STEP = re.compile(r"[a-z]([-a-z0-9]{0,18}[a-z0-9])?")
_IMAGE = re.compile(
    r"(?P<name>[^\s:@]+(:\d+/[^\s:@]+)?)(:(?P<tag>[\w][\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)


def require_object_name(key: str, name: str) -> None:
    """Raise unless `name` can be an object's."""
    require(_matches(_NAME, name), key, name, "must be the name of a Kubernetes object")


def require_step_name(key: str, name: str) -> None:
    """Raise unless names of jobs can start with `name`."""
    rule = "must be at most 20 of a-z, 0-9 and '-', and start with a letter"
    require(_matches(_STEP, name), key, name, rule)


def require_label_value(key: str, value: str) -> None:
    """Raise unless `value` can be a label's."""
    rule = "must be a label value: at most 63 letters, digits, '-', '_', '.', the first and last alphanumeric"
    require(_matches(_LABEL_VALUE, value), key, value, rule)


def require_node_label(key: str, label: str) -> None:
    """Raise unless `label` is `key=value`."""
    name, separator, value = label.partition("=")
    ok = bool(separator) and _matches(_LABEL_KEY, name) and _matches(_LABEL_VALUE, value)
    require(ok, key, label, "must be key=value of a node label, such as karpenter.sh/capacity-type=spot")


def require_taint(key: str, taint: str) -> None:
    """Raise unless `taint` is `key=value:effect` or `key:effect`."""
    label, _, effect = taint.rpartition(":")
    name, separator, value = label.partition("=")
    ok = _matches(_LABEL_KEY, name) and (not separator or _matches(_LABEL_VALUE, value))
    rule = f"must be key=value:effect or key:effect, the effect one of {', '.join(_TAINT_EFFECTS)}"
    require(ok and effect in _TAINT_EFFECTS, key, taint, rule)


def require_pinned_image(key: str, image: str) -> None:
    """Raise unless `image` has a digest, or a version that is not `latest`."""
    found = _IMAGE.fullmatch(image)
    pinned = found is not None and (found["digest"] is not None or found["tag"] not in (None, "latest"))
    require(pinned, key, image, "must be name:version or name@sha256:digest, and the version not latest")


def _matches(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.fullmatch(text) is not None
