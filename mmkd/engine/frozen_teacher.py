"""A teacher beside a student: frozen, checked before training, and run no further than needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmkd.checkpoint import LoadReport
from mmkd.engine.input_conversion import InputConversion, KnownFormat, image_sizes
from mmkd.engine.levels import located
from mmkd.engine.probe import probing
from mmkd.errors import naming
from mmkd.features import FeatureTaps, find_module
from mmkd.numerics import as_weights
from mmkd.terms import Term

__all__ = ["FrozenTeacher", "TeacherFiles", "modules_that_run", "taps_of"]

Forward = Callable[[nn.Module, Tensor, Any], Any]


class TeacherFiles(NamedTuple):
    """A checkpoint, and the config that belongs to it where it does not hold its own."""

    checkpoint: Path
    config: str | None = None


@contextmanager
def modules_that_run(model: nn.Module) -> Iterator[set[str]]:
    """Yields a set that fills with the names of the modules entered while it lasts."""
    ran: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda m, args, name=name: ran.add(name))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def taps_of(where: str, terms: Sequence[Term]) -> list[tuple[str, str]]:
    """The teacher's taps of terms: the setting that names each, and the module's path.

    Args:
        where: The teacher's own setting, whose owner the terms share.
    """
    owner = where.partition(" ")[0]
    return [(f"{owner} {term.key}.teacher", path) for term in terms for path in term.teacher_paths]


class FrozenTeacher:
    """A frozen model that takes images as the student's trainer prepared them.

    Its features are computed without gradients, and the forward pass ends at the deepest tap: what
    comes after it never runs.

    Args:
        where: The setting that errors name.
        model: Any module. It is put into eval mode and its parameters out of training's reach.
        taps: The modules to tap, as :func:`taps_of` gives them.
        conversion: From the student's images to those that ``model`` takes.
        blank: ``[1, 3, H, W]`` in the student's format, on the device where to run; it is tried on
            it.
        forward: How to run ``model``; called as ``forward(model, inputs, context)``.
        dtype: In which to run; None: float32, or as the autocast around it says.

    Raises:
        ValueError: A tap that does not exist.
        RuntimeError: A tapped module does not run.
    """

    # What a resumed training needs of it: nothing, since it stays as it was loaded.
    state: nn.Module | None = None
    own_taps: tuple[str, ...] = ()

    def __init__(
        self,
        where: str,
        model: nn.Module,
        taps: Sequence[tuple[str, str]],
        conversion: InputConversion,
        blank: Tensor,
        *,
        forward: Forward | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for setting, path in taps:
            with naming(setting):
                find_module(model, path)
        self.model = model.to(blank.device, dtype)
        # Not chained: MMDetection's backbones return None from train() and eval().
        self.model.eval()
        self.model.requires_grad_(False)
        self._where = where
        self._dtype = dtype
        self._convert = conversion
        self._forward = forward or (lambda model, inputs, context: model(inputs))
        self._taps = FeatureTaps(model, (path for _, path in taps), stop_when_complete=True)
        owner, _, name = where.partition(" ")
        with modules_that_run(model) as ran, probing(owner, f"the {name}", blank):
            self._record(blank)
        with naming(where):
            self.probed = self._taps.take()
        self._probed_on = (blank.shape[2], blank.shape[3])
        self.ran = ran
        self.loaded: LoadReport | None = None
        self.introduction = ""

    def located(self, terms: Sequence[Term]) -> list[Term]:
        """Terms whose taps of this teacher are levels, where they were strides.

        Raises:
            ValueError: There is no such stride, naming the term.
        """
        owner, found = self._where.partition(" ")[0], []
        for term in terms:
            with naming(f"{owner} {term.key}.teacher"):
                found.append(
                    term.with_teacher_taps(lambda tap: located(tap, self.probed, self._probed_on))
                )
        return found

    def module(self, path: str) -> nn.Module:
        """A module of the teacher's, to be used beside its features.

        Raises:
            ValueError: There is none, or the checkpoint did not fill it.
        """
        module = find_module(self.model, path)
        if self.loaded is not None:
            inner = {f"{path}.{name}".strip(".") for name, _ in module.named_modules()}
            self.loaded.require(inner)
        return module

    def introduce(self, origin: str, images: KnownFormat) -> None:
        """Makes :attr:`introduction`, which tells a user what they want to know about it.

        Args:
            origin: What the network is and where it comes from.
            images: What is known of the images it takes.
        """
        total = sum(1 for _ in self.model.modules()) - 1
        self.introduction = (
            f"{self._where}: {origin}; "
            f"input {'as the student sees it' if self._convert.is_identity else 'converted'} "
            f"({images}); "
            f"runs {len(self.ran)} of {total} modules"
        )

    @property
    def converts_images(self) -> bool:
        """Whether it is given other images than the student."""
        return not self._convert.is_identity

    def advance(self, iteration: int) -> None:
        """See :meth:`mmkd.distillation.FeatureSource.advance`."""

    def features(
        self, inputs: Tensor, context: Any = None, student: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Tapped outputs for a batch in the student's format.

        Args:
            inputs: ``[N, 3, H, W]``.
            context: Data samples of the batch, or its images' sizes, where the trainer has them;
                they tell which part of each image is padding.
            student: See :meth:`mmkd.distillation.FeatureSource.features`; not looked at.

        Raises:
            RuntimeError: A tapped module did not run, or ran more than once.
        """
        self._record(inputs, context)
        return self._taps.take()

    def converted(self, inputs: Tensor, context: Any = None) -> Tensor:
        """A batch as the teacher is given it. See :meth:`features`."""
        return self._convert(inputs, None if self._convert.is_identity else image_sizes(context))

    @torch.no_grad()
    def _record(self, inputs: Tensor, context: Any = None) -> None:
        images = self.converted(inputs, context)
        if self._dtype is None:
            self._run(as_weights(self.model, images), context)
            return
        with torch.autocast(inputs.device.type, enabled=False):
            self._run(images.to(self._dtype), context)

    def _run(self, images: Tensor, context: Any) -> None:
        with self._taps.recording():
            self._forward(self.model, images, context)
