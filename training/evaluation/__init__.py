"""A model measured over a split, beside baselines that have learnt nothing."""

from training.evaluation.baselines import BASELINES
from training.evaluation.evaluate import Options, evaluate
from training.evaluation.pairs import Choice, choose
from training.evaluation.summary import Estimate, Evaluation, as_document

__all__ = ["BASELINES", "Choice", "Estimate", "Evaluation", "Options", "as_document", "choose", "evaluate"]
