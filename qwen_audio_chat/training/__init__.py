"""Training at any size: manifests, collation, the stages of the paper and the alignment before them."""

from ..model.quantization import import_bitsandbytes

import_bitsandbytes()  # quietly, before transformers' Trainer does
