"""Caption metrics of the COCO tools (pycocoevalcap), as far as Java and its jars are there."""

import contextlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from .metrics import Metric, chrf

COCO_METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor", "spice", "spider")


def caption_metrics(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, Metric]:
    """Score captions against one or more references each.

    chrF always comes out. The COCO metrics start with the Penn Treebank tokenizer, a Java program; SPICE needs
    Stanford's models, too, which no package carries. What can't run is "not computed" and says why.
    SPIDEr is the mean of CIDEr and SPICE.
    """
    scores = {"chrf": chrf(references, predictions)}
    problem = _coco_problem()
    if problem:
        return scores | {name: Metric.not_computed(problem) for name in COCO_METRICS}
    with contextlib.redirect_stdout(sys.stderr):  # the COCO tools print; standard output is for results
        try:
            return scores | _coco_metrics(references, predictions)
        except (OSError, ValueError) as error:
            return scores | {name: Metric.not_computed(f"the COCO tools failed: {error}") for name in COCO_METRICS}


def _coco_problem() -> str | None:
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError:
        return "needs the COCO caption tools: pip install pycocoevalcap"
    return None if shutil.which("java") else "needs Java for the Penn Treebank tokenizer: install a Java runtime"


def _coco_metrics(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, Metric]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    truth = tokenizer.tokenize({place: [{"caption": text} for text in group] for place, group in enumerate(references)})
    guess = tokenizer.tokenize({place: [{"caption": text}] for place, text in enumerate(predictions)})
    values, _ = Bleu(4).compute_score(truth, guess)
    scores = {f"bleu_{order}": Metric(float(value)) for order, value in enumerate(values, 1)}
    scores["rouge_l"] = Metric(float(Rouge().compute_score(truth, guess)[0]))
    scores["cider"] = Metric(float(Cider().compute_score(truth, guess)[0]))
    scores["meteor"] = Metric(float(Meteor().compute_score(truth, guess)[0]))
    scores["spice"] = _spice(truth, guess)
    spice = scores["spice"].value
    scores["spider"] = (
        Metric.not_computed("needs SPICE") if spice is None else Metric((scores["cider"].value + spice) / 2)
    )
    return scores


def _spice(truth: dict, guess: dict) -> Metric:
    import pycocoevalcap.spice

    # Its constructor would start to download the models, so they are looked for first.
    jars = list((Path(pycocoevalcap.spice.__file__).parent / "lib").glob("stanford-corenlp-3.6.0*.jar"))
    if len(jars) < 2:
        return Metric.not_computed("needs Stanford CoreNLP 3.6.0 and its models in pycocoevalcap/spice/lib")
    from pycocoevalcap.spice.spice import Spice

    return Metric(float(Spice().compute_score(truth, guess)[0]))
