"""Compressors: what an agent sends in place of a vector, for all agents' vectors [n, d] at once.

``compressor(key, x)`` compresses every row of x [n, d] with independent random numbers, such that

    E C(x) = x,  E|C(x) − x|² ≤ ω |x|²      (unbiased: ``omega(d)``)      or
                 E|C(x) − x|² ≤ (1 − δ) |x|²  (contractive: ``delta(d)``),

for every x, C(0) = 0, and C(x) is finite where x is, in every precision. Linear sketches draw one
matrix for all rows; ``encode`` and ``decode`` are their two halves. ``bits(d)`` is the size of
one message, with `FLOAT` bits a number whatever the precision of the simulation. ``error(d)`` is
approximately E|C(x) − x|² / |x|² for Gaussian x; methods choose their default parameters by it, as
ω and 1 − δ are worst cases, which are much larger for dithering and signs.

Sources: Alistarh, Grubic, Li, Tomioka, Vojnovic (2017), arXiv 1610.02132 (dithering); Stich,
Cordonnier, Jaggi (2018), arXiv 1809.07599 (top-k, random-k); Horváth, Ho, Horváth, Sahu, Canini,
Richtárik (2019), arXiv 1905.10988 (natural); Liu, Li, Wang, Tang, Yan (2021), arXiv 2007.00232
(dithering in the maximum norm); Douillard et al. (2025), arXiv 2501.18512 (floats of 4 bits);
Alon, Matias, Szegedy (1999) (signs); Charikar, Chen, Farach-Colton (2002) (count sketch); Ailon,
Chazelle (2009) and Tropp (2011), arXiv 1011.1595 (SRHT).
"""

from jaxdopt.compressors.base import FLOAT, Compressor, Identity, is_contractive, is_unbiased
from jaxdopt.compressors.bytes import LogByte
from jaxdopt.compressors.composed import Blocks, Contractive, PerLeaf, per_leaf
from jaxdopt.compressors.quantizers import E3M0, Dither, Natural, ScaledSign, Sign
from jaxdopt.compressors.selections import RandomK, TopK
from jaxdopt.compressors.sketches import SRHT, CountSketch, GaussianSketch, RademacherSketch

__all__ = [
    "E3M0",
    "FLOAT",
    "SRHT",
    "Blocks",
    "Compressor",
    "Contractive",
    "CountSketch",
    "Dither",
    "GaussianSketch",
    "Identity",
    "LogByte",
    "Natural",
    "PerLeaf",
    "RademacherSketch",
    "RandomK",
    "ScaledSign",
    "Sign",
    "TopK",
    "is_contractive",
    "is_unbiased",
    "per_leaf",
]
