"""What a worker does when a validation is due."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from arco_core.stages import Stage
from infra.training.health import check_classes
from infra.training.recorder import Recorder
from infra.training.validation import Validation, Validator, best_of


class Examination:
    """Validates the student of `stage`, logs it, and compares it with the validations before.

    Args:
        validator: this worker's.
        stage: what is trained.
        earlier: the validations up to where training continues from.
        recorder: rank 0's.
        warn: told what somebody should look at.
    """

    def __init__(
        self,
        validator: Validator,
        stage: Stage,
        earlier: Sequence[Validation],
        recorder: Recorder | None,
        warn: Callable[[str], None],
    ) -> None:
        self._validator, self._stage, self._recorder, self._warn = validator, stage, recorder, warn
        self._done = list(earlier)

    def __call__(self, step: int) -> bool:
        """Whether the student was never better than after this `step`.

        Raises `Collapsed` on every worker when a class collapsed (`infra.training.health`).
        """
        start = time.perf_counter()
        before = best_of(self._done)
        validation = self._validator(self._stage.export(), step)
        self._done.append(validation)
        if self._recorder:
            self._recorder.log_validation(validation, time.perf_counter() - start)
        warning = check_classes(self._done)
        if warning and self._recorder:
            self._warn(warning)
        return before is None or validation.dice > before.dice
