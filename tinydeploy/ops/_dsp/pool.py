"""Turn average pools and means over positions into sums of four channels at a time."""

from __future__ import annotations

from tinydeploy.ops._dsp.requant import is_dsp
from tinydeploy.ops.base import Kernel, Site


def _image(site: Site) -> bool:
    return is_dsp(site) and site.optimize != "size" and site.call.input().shape[-1] >= 4


def _positions(site: Site) -> bool:
    """Accept a mean over axes before the last kept one: per channel, over all positions."""
    from tinydeploy.ops.mean import params

    if not _image(site):
        return False
    p = params(site.call, site.profile)
    return (
        p.middle >= 4
        and p.outer == p.reduce_1 == p.inner == 1
        and not site.profile.rounds_once("MEAN")
    )


AVERAGE_POOL_2D = (
    Kernel("dsp/average_pool_2d", "td_average_pool_2d_dsp", _image, by_rows=True),
)  # fmt: skip
MEAN = (Kernel("dsp/mean", "td_mean_dsp", _positions),)
