"""Room of what `jstar plan` computes of GPUs that are not here: does every size fit, how fast.

Nothing here is measured but the processor's own speed; all of it is labelled as computed.


"""

from jstar.preflight.forecast import Preflight, preflight

__all__ = ["Preflight", "preflight"]
