"""An evaluation with positional arguments."""

from __future__ import annotations

from typing import Any

from fer_pipeline.pipelines import evaluate as evaluate_pipeline
from fer_pipeline.pipelines.evaluate import EvaluationRequest
from fer_pipeline.pipelines.run_evaluation import Evaluation


def evaluate(*arguments: Any, **options: Any) -> Evaluation:
    """Evaluate a model; the arguments are those of `EvaluationRequest`."""
    return evaluate_pipeline.evaluate(EvaluationRequest(*arguments, **options))
