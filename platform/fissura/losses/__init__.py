"""Segmentation losses. `AnyLoss` is the registry: to add a loss, add its spec to the union."""

from typing import Annotated

from pydantic import Field

from fissura.losses.bce import BCE, BCELoss
from fissura.losses.dice import Dice, DiceLoss
from fissura.losses.dice_bce import DiceBCE, DiceBCELoss
from fissura.losses.loss import SegmentationLoss

AnyLoss = Annotated[BCE | Dice | DiceBCE, Field(discriminator="kind")]

__all__ = ["BCE", "AnyLoss", "BCELoss", "Dice", "DiceBCE", "DiceBCELoss", "DiceLoss", "SegmentationLoss"]
