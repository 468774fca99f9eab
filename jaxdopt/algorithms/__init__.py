"""Algorithms: one method a file, each a pytree of numbers with `init`, `step` and maybe `cost`."""

from jaxdopt.algorithms.ab import AB
from jaxdopt.algorithms.ad_psgd import ADPSGD
from jaxdopt.algorithms.adsgd import ADSGD
from jaxdopt.algorithms.afa_cd import AFACD
from jaxdopt.algorithms.afa_cs import AFACS
from jaxdopt.algorithms.apd import APD
from jaxdopt.algorithms.apd_sc import APDSC
from jaxdopt.algorithms.asbcd import ASBCD
from jaxdopt.algorithms.async_fed_avg import AsyncFedAvg
from jaxdopt.algorithms.atcgt import ATCGT
from jaxdopt.algorithms.bcpp import BCPP
from jaxdopt.algorithms.beer import BEER
from jaxdopt.algorithms.btpp import BTPP
from jaxdopt.algorithms.cedas import CEDAS
from jaxdopt.algorithms.centralized_rr import CentralizedRR
from jaxdopt.algorithms.cgt import CGT
from jaxdopt.algorithms.choco_sgd import CHOCOSGD
from jaxdopt.algorithms.cost import Cost, gossip, messages, samples, vector_bits
from jaxdopt.algorithms.cpp import CPP
from jaxdopt.algorithms.deep_squeeze import DeepSqueeze
from jaxdopt.algorithms.dgd import DGD
from jaxdopt.algorithms.diging import DIGing
from jaxdopt.algorithms.drr import DRR
from jaxdopt.algorithms.dsgd import DSGD
from jaxdopt.algorithms.edrr import EDRR
from jaxdopt.algorithms.exact_diffusion import ExactDiffusion
from jaxdopt.algorithms.extra import EXTRA
from jaxdopt.algorithms.fed_avg import FedAvg
from jaxdopt.algorithms.fed_avg_momentum import FedAvgMomentum
from jaxdopt.algorithms.fed_buff import FedBuff
from jaxdopt.algorithms.fed_dual_avg import FedDualAvg
from jaxdopt.algorithms.fed_fix import FedFix
from jaxdopt.algorithms.fed_mid import FedMid
from jaxdopt.algorithms.fed_nmap import FedNMap
from jaxdopt.algorithms.fed_prox import FedProx
from jaxdopt.algorithms.fed_sum import FedSUM
from jaxdopt.algorithms.fed_sum_b import FedSUMB
from jaxdopt.algorithms.fed_sum_cr import FedSUMCR
from jaxdopt.algorithms.fed_varp import FedVARP
from jaxdopt.algorithms.focus import FOCUS
from jaxdopt.algorithms.gradient_descent import GradientDescent
from jaxdopt.algorithms.gradient_tracking import GradientTracking
from jaxdopt.algorithms.gt_saga import GTSAGA
from jaxdopt.algorithms.gt_svrg import GTSVRG
from jaxdopt.algorithms.gtrr import GTRR
from jaxdopt.algorithms.lead import LEAD
from jaxdopt.algorithms.linearized_admm import LinearizedADMM
from jaxdopt.algorithms.local_dsgd import LocalDSGD
from jaxdopt.algorithms.mifa import MIFA
from jaxdopt.algorithms.nids import NIDS
from jaxdopt.algorithms.oldsgd import OLDSGD
from jaxdopt.algorithms.osgp import OSGP
from jaxdopt.algorithms.pg_extra import PGEXTRA
from jaxdopt.algorithms.push_diging import PushDIGing
from jaxdopt.algorithms.push_pull import PushPull
from jaxdopt.algorithms.push_sum import PushSum
from jaxdopt.algorithms.r_fast import RFAST
from jaxdopt.algorithms.relay_sgd import RelaySGD
from jaxdopt.algorithms.scaffold import SCAFFOLD
from jaxdopt.algorithms.scaffold_momentum import SCAFFOLDMomentum
from jaxdopt.algorithms.sgd import SGD
from jaxdopt.algorithms.sgp import SGP
from jaxdopt.algorithms.stpp import STPP
from jaxdopt.algorithms.zhang_hu_johansson import ZhangHuJohansson

__all__ = [
    "AB",
    "ADPSGD",
    "ADSGD",
    "AFACD",
    "AFACS",
    "APD",
    "APDSC",
    "ASBCD",
    "ATCGT",
    "BCPP",
    "BEER",
    "BTPP",
    "CEDAS",
    "CGT",
    "CHOCOSGD",
    "CPP",
    "DGD",
    "DRR",
    "DSGD",
    "EDRR",
    "EXTRA",
    "FOCUS",
    "GTRR",
    "GTSAGA",
    "GTSVRG",
    "LEAD",
    "MIFA",
    "NIDS",
    "OLDSGD",
    "OSGP",
    "PGEXTRA",
    "RFAST",
    "SCAFFOLD",
    "SGD",
    "SGP",
    "STPP",
    "AsyncFedAvg",
    "CentralizedRR",
    "Cost",
    "DIGing",
    "DeepSqueeze",
    "ExactDiffusion",
    "FedAvg",
    "FedAvgMomentum",
    "FedBuff",
    "FedDualAvg",
    "FedFix",
    "FedMid",
    "FedNMap",
    "FedProx",
    "FedSUM",
    "FedSUMB",
    "FedSUMCR",
    "FedVARP",
    "GradientDescent",
    "GradientTracking",
    "LinearizedADMM",
    "LocalDSGD",
    "PushDIGing",
    "PushPull",
    "PushSum",
    "RelaySGD",
    "SCAFFOLDMomentum",
    "ZhangHuJohansson",
    "gossip",
    "messages",
    "samples",
    "vector_bits",
]
