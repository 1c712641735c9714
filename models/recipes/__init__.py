"""The recipe of the bundled pair: corpus, tokenizer, training, distillation, packaging, evaluation.

Every step is a module with a command line of its own; ``make pair`` runs them in order. Needs the extra ``train``.
"""
