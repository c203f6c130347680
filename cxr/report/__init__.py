"""One report from the facts of an evaluation: a page, a model card, a checklist."""
