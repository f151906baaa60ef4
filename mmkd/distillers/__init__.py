"""Methods that are more than a loss, one a file. Each is a :class:`mmkd.distiller.Distiller`."""

from mmkd.distillers.afd import AFDDistiller as AFDDistiller
from mmkd.distillers.cid import CIDDistiller as CIDDistiller
from mmkd.distillers.crd import CRDDistiller as CRDDistiller
from mmkd.distillers.ft import FTDistiller as FTDistiller
from mmkd.distillers.sskd import SSKDDistiller as SSKDDistiller
from mmkd.distillers.uskd import USKDDistiller as USKDDistiller
