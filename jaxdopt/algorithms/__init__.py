"""Algorithms: one method a file, each a pytree of numbers with `init`, `step` and maybe `cost`.

`jaxdopt` has all of them flat, as ``jd.X``; `python -m experiments methods` describes each.
"""

from jaxdopt.algorithms.asynchronous.ad_psgd import ADPSGD
from jaxdopt.algorithms.asynchronous.adsgd import ADSGD
from jaxdopt.algorithms.asynchronous.afa_cd import AFACD
from jaxdopt.algorithms.asynchronous.afa_cs import AFACS
from jaxdopt.algorithms.asynchronous.asbcd import ASBCD
from jaxdopt.algorithms.asynchronous.async_fed_avg import AsyncFedAvg
from jaxdopt.algorithms.asynchronous.fed_buff import FedBuff
from jaxdopt.algorithms.asynchronous.fed_fix import FedFix
from jaxdopt.algorithms.asynchronous.r_fast import RFAST
from jaxdopt.algorithms.baselines.gradient_descent import GradientDescent
from jaxdopt.algorithms.baselines.sgd import SGD
from jaxdopt.algorithms.black_boxes.cbo import CBO
from jaxdopt.algorithms.black_boxes.consensus_hopping import ConsensusHopping
from jaxdopt.algorithms.black_boxes.fed_zo import FedZO
from jaxdopt.algorithms.black_boxes.fzoos import FZooS
from jaxdopt.algorithms.black_boxes.just_one_byte import JustOneByte
from jaxdopt.algorithms.compressed.bcpp import BCPP
from jaxdopt.algorithms.compressed.beer import BEER
from jaxdopt.algorithms.compressed.cedas import CEDAS
from jaxdopt.algorithms.compressed.cgt import CGT
from jaxdopt.algorithms.compressed.choco_sgd import CHOCOSGD
from jaxdopt.algorithms.compressed.cpp import CPP
from jaxdopt.algorithms.compressed.deep_squeeze import DeepSqueeze
from jaxdopt.algorithms.compressed.lead import LEAD
from jaxdopt.algorithms.directed.ab import AB
from jaxdopt.algorithms.directed.apd import APD
from jaxdopt.algorithms.directed.apd_sc import APDSC
from jaxdopt.algorithms.directed.osgp import OSGP
from jaxdopt.algorithms.directed.push_diging import PushDIGing
from jaxdopt.algorithms.directed.push_pull import PushPull
from jaxdopt.algorithms.directed.push_sum import PushSum
from jaxdopt.algorithms.directed.sgp import SGP
from jaxdopt.algorithms.error_feedback.compressed_sgd import CompressedSGD
from jaxdopt.algorithms.error_feedback.dgc import DGC
from jaxdopt.algorithms.error_feedback.econtrol import EControl
from jaxdopt.algorithms.error_feedback.ef14 import EF14
from jaxdopt.algorithms.error_feedback.ef21 import EF21
from jaxdopt.algorithms.error_feedback.ef21_sgdm import EF21SGDM
from jaxdopt.algorithms.federated.fed_avg import FedAvg
from jaxdopt.algorithms.federated.fed_avg_momentum import FedAvgMomentum
from jaxdopt.algorithms.federated.fed_dual_avg import FedDualAvg
from jaxdopt.algorithms.federated.fed_mid import FedMid
from jaxdopt.algorithms.federated.fed_nmap import FedNMap
from jaxdopt.algorithms.federated.fed_prox import FedProx
from jaxdopt.algorithms.federated.fed_sum import FedSUM
from jaxdopt.algorithms.federated.fed_sum_b import FedSUMB
from jaxdopt.algorithms.federated.fed_sum_cr import FedSUMCR
from jaxdopt.algorithms.federated.fed_varp import FedVARP
from jaxdopt.algorithms.federated.focus import FOCUS
from jaxdopt.algorithms.federated.mifa import MIFA
from jaxdopt.algorithms.federated.scaffold import SCAFFOLD
from jaxdopt.algorithms.federated.scaffold_momentum import SCAFFOLDMomentum
from jaxdopt.algorithms.federated.sketched_sgd import SketchedSGD
from jaxdopt.algorithms.federated.zhang_hu_johansson import ZhangHuJohansson
from jaxdopt.algorithms.games.extra_gradient import ExtraGradient
from jaxdopt.algorithms.games.masha1 import MASHA1
from jaxdopt.algorithms.games.masha2 import MASHA2
from jaxdopt.algorithms.gossip.dgd import DGD
from jaxdopt.algorithms.gossip.dsgd import DSGD
from jaxdopt.algorithms.gossip.local_dsgd import LocalDSGD
from jaxdopt.algorithms.gossip.oldsgd import OLDSGD
from jaxdopt.algorithms.low_communication.aedit import AEDiT
from jaxdopt.algorithms.low_communication.async_diloco import AsyncDiLoCo
from jaxdopt.algorithms.low_communication.co2 import CO2
from jaxdopt.algorithms.low_communication.decoupled_diloco import DecoupledDiLoCo
from jaxdopt.algorithms.low_communication.diloco import DiLoCo
from jaxdopt.algorithms.low_communication.edit import EDiT
from jaxdopt.algorithms.low_communication.noloco import NoLoCo
from jaxdopt.algorithms.low_communication.sparse_loco import SparseLoCo
from jaxdopt.algorithms.low_communication.streaming_diloco import StreamingDiLoCo
from jaxdopt.algorithms.primal_dual.exact_diffusion import ExactDiffusion
from jaxdopt.algorithms.primal_dual.extra import EXTRA
from jaxdopt.algorithms.primal_dual.linearized_admm import LinearizedADMM
from jaxdopt.algorithms.primal_dual.nids import NIDS
from jaxdopt.algorithms.primal_dual.pg_extra import PGEXTRA
from jaxdopt.algorithms.reshuffling.centralized_rr import CentralizedRR
from jaxdopt.algorithms.reshuffling.drr import DRR
from jaxdopt.algorithms.reshuffling.edrr import EDRR
from jaxdopt.algorithms.reshuffling.gtrr import GTRR
from jaxdopt.algorithms.robust.monna import MoNNA
from jaxdopt.algorithms.robust.sybil_wall import SybilWall
from jaxdopt.algorithms.tracking.atcgt import ATCGT
from jaxdopt.algorithms.tracking.diging import DIGing
from jaxdopt.algorithms.tracking.gradient_tracking import GradientTracking
from jaxdopt.algorithms.tracking.gt_saga import GTSAGA
from jaxdopt.algorithms.tracking.gt_svrg import GTSVRG
from jaxdopt.algorithms.tracking.gt_vr import GTVR
from jaxdopt.algorithms.trees.relay_sgd import RelaySGD
from jaxdopt.algorithms.trees.stpp import STPP

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
    "CBO",
    "CEDAS",
    "CGT",
    "CHOCOSGD",
    "CO2",
    "CPP",
    "DGC",
    "DGD",
    "DRR",
    "DSGD",
    "EDRR",
    "EF14",
    "EF21",
    "EF21SGDM",
    "EXTRA",
    "FOCUS",
    "GTRR",
    "GTSAGA",
    "GTSVRG",
    "GTVR",
    "LEAD",
    "MASHA1",
    "MASHA2",
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
    "AEDiT",
    "AsyncDiLoCo",
    "AsyncFedAvg",
    "CentralizedRR",
    "CompressedSGD",
    "ConsensusHopping",
    "DIGing",
    "DecoupledDiLoCo",
    "DeepSqueeze",
    "DiLoCo",
    "EControl",
    "EDiT",
    "ExactDiffusion",
    "ExtraGradient",
    "FZooS",
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
    "FedZO",
    "GradientDescent",
    "GradientTracking",
    "JustOneByte",
    "LinearizedADMM",
    "LocalDSGD",
    "MoNNA",
    "NoLoCo",
    "PushDIGing",
    "PushPull",
    "PushSum",
    "RelaySGD",
    "SCAFFOLDMomentum",
    "SketchedSGD",
    "SparseLoCo",
    "StreamingDiLoCo",
    "SybilWall",
    "ZhangHuJohansson",
]
