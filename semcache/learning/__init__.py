"""What a cache learns about its own answers, and how it comes to know.

`Learning` is the policy's memory: it looks at candidates, hands out the policy of the moment,
takes labels, and keeps all of it in the store. `beliefs` is what it thinks, `desk` is where
answers are compared.
"""

from semcache.learning.learner import Learning

__all__ = ["Learning"]
