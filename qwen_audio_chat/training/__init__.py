"""Training at any size: manifests, collation, the stages of the paper and the alignment before them."""
