"""Many trainings, of which some start from others: one after another, or side by side on Ray Tune."""

from infra.tuning.agenda import Agenda, Outcome, State, Task
from infra.tuning.run import Places, run_tasks

__all__ = ["Agenda", "Outcome", "Places", "State", "Task", "run_tasks"]
