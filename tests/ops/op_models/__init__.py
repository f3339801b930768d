"""Hold single-operator models, one module per registered operator.

A module named like the operator defines `fixed()`, models that cover what must be covered, and
`drawn(random)`, one random model.
"""
