"""Projectors: from the student's space to the teacher's, one family a file."""

from mmkd.projectors.base import Projector as Projector
from mmkd.projectors.connector import ConvConnector as ConvConnector
from mmkd.projectors.ensemble import ProjectorEnsemble as ProjectorEnsemble
from mmkd.projectors.identity import IdentityProjector as IdentityProjector
from mmkd.projectors.linear import LinearProjector as LinearProjector
from mmkd.projectors.mlp import MLPProjector as MLPProjector
