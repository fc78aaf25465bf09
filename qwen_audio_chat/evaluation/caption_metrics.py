"""Caption metrics of the COCO tools (pycocoevalcap), as far as Java and its jars are installed."""

import contextlib
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from .metrics import Metric, chrf
from .normalization import normalize

COCO_METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor", "spice", "spider")
PLAIN_WORDS = "on lower-case words without punctuation, since the official tokenizer needs Java"


def caption_metrics(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, Metric]:
    """Score captions against one or more references each.

    chrF is always computed. METEOR and SPICE are Java programs; SPICE also needs Stanford's models, which no package
    contains. The Penn Treebank tokenizer of all the others is a Java program, too: without Java they are computed on
    plain words, and their note says so. What can't run is "not computed", with the reason. SPIDEr is the mean of CIDEr
    and SPICE.
    """
    scores = {"chrf": chrf(references, predictions)}
    if find_spec("pycocoevalcap") is None:
        missing = Metric.not_computed("needs the COCO caption tools: pip install pycocoevalcap")
        return scores | dict.fromkeys(COCO_METRICS, missing)
    with contextlib.redirect_stdout(sys.stderr):  # the COCO tools print; standard output is for results
        try:
            return scores | _coco_metrics(references, predictions)
        except (OSError, ValueError) as error:
            failed = Metric.not_computed(f"the COCO tools failed: {error}")
            return scores | dict.fromkeys(COCO_METRICS, failed)


def _coco_metrics(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, Metric]:
    # Optional, here and below.
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    has_java = shutil.which("java") is not None
    tokenize, note = (_penn_treebank, "") if has_java else (_plain_words, PLAIN_WORDS)
    truth, guess = tokenize(references), tokenize([[text] for text in predictions])
    values, _ = Bleu(4).compute_score(truth, guess)
    scores = {f"bleu_{order}": Metric(float(value), note=note) for order, value in enumerate(values, 1)}
    scores["rouge_l"] = Metric(float(Rouge().compute_score(truth, guess)[0]), note=note)
    cider = float(Cider().compute_score(truth, guess)[0])
    scores["cider"] = Metric(cider, note=note)
    if not has_java:
        return scores | dict.fromkeys(("meteor", "spice", "spider"), Metric.not_computed("needs a Java runtime"))
    from pycocoevalcap.meteor.meteor import Meteor

    scores["meteor"] = Metric(float(Meteor().compute_score(truth, guess)[0]))
    scores["spice"] = _spice(truth, guess)
    spice = scores["spice"].value
    scores["spider"] = Metric.not_computed("needs SPICE") if spice is None else Metric((cider + spice) / 2)
    return scores


def _penn_treebank(groups: Sequence[Sequence[str]]) -> dict[int, list[str]]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    return PTBTokenizer().tokenize({n: [{"caption": text} for text in group] for n, group in enumerate(groups)})


def _plain_words(groups: Sequence[Sequence[str]]) -> dict[int, list[str]]:
    return {n: [normalize(text, "lower_no_punctuation") for text in group] for n, group in enumerate(groups)}


def _spice(truth: dict, guess: dict) -> Metric:
    import pycocoevalcap.spice

    # Look for the models first, since the constructor would download them.
    jars = list((Path(pycocoevalcap.spice.__file__).parent / "lib").glob("stanford-corenlp-3.6.0*.jar"))
    if len(jars) < 2:
        return Metric.not_computed("needs Stanford CoreNLP 3.6.0 and its models in pycocoevalcap/spice/lib")
    from pycocoevalcap.spice.spice import Spice

    return Metric(float(Spice().compute_score(truth, guess)[0]))
