"""Distillation in a training loop of one's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.optimizer import register_optimizer_step_post_hook

from mmkd.distillation import FeatureSource, Measured
from mmkd.dynamics import ProbeImages, dynamics_of, recorded
from mmkd.dynamics_file import Measures
from mmkd.engine import torchvision_detectors
from mmkd.engine.input_conversion import KnownFormat
from mmkd.engine.own_formats import format_of
from mmkd.engine.probe import ProbeSize
from mmkd.engine.settings import DistillSettings
from mmkd.engine.teachers import StatedImages
from mmkd.errors import InputError, InputTypeError, TermError
from mmkd.features import OwnHook, evaluation_mode
from mmkd.targets import Targets
from mmkd.terms import Term

__all__ = ["PlainDistillation", "distill"]

_OWNER = "distill"
# Most networks of a fixed size take it, and all that take multiples of 32.
_USUAL_SIZE = (224, 224)


def distill(
    student: nn.Module,
    teacher: Any,
    terms: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    images: Mapping[str, Any] | None = None,
    iterations_per_epoch: int | None = None,
    probe_size: ProbeSize | None = None,
    seed: int = 0,
) -> PlainDistillation:
    """Distillation around a loop that calls the student itself.

    ::

        with distill(student, teacher=dict(module=teacher), terms=...) as distillation:
            optimizer = SGD([*student.parameters(), *distillation.parameters()], lr=0.01)
            for images, targets in loader:
                losses = student(images, targets)
                loss = sum(losses.values()) + distillation.loss(images)

    Args:
        student: On its device; any module, DistributedDataParallel around it included. Its
            forward passes in training mode are listened to.
        teacher: A torch module, or as for :class:`mmkd.DistillHook`.
        terms: Likewise. None: the maps of the modules ``neck`` are compared where both have one,
            else the outputs of the modules ``backbone``.
        images: How the student's images are normalised: ``dict(mean=..., std=..., order='rgb')`` of
            0 to 255 images. Needed where a teacher takes images of a known normalisation, unless
            the student is a network of timm's or torchvision's, whose pretrained weights' it is
            taken to be.
        iterations_per_epoch: Calls of ``loss`` an epoch, for schedules that count epochs.
        probe_size: Height and width in pixels, or one number for both, of the blank image on
            which teacher, taps and channels are tried. None: those that a torchvision detector
            resizes all images to, if it does; else 224.
        seed: Of the projectors' initial weights.

    A term that cannot help (:class:`mmkd.term_watch.TermWatch`) is a warning in the log
    (``mmkd.engine.plain``).

    Copies of the student that are made inside the block (a moving average, for instance) are not
    listened to, and neither is a pickle of it.

    Raises:
        ValueError, TypeError, FileNotFoundError: A setting, tap or shape that does not fit, naming
            it.
    """
    if not isinstance(student, nn.Module):
        raise InputTypeError.at(f"{_OWNER} student", f"expected a torch module, got {student!r}")
    return PlainDistillation(
        student,
        DistillSettings.parse(_OWNER, teacher, terms, probe_size),
        images=images,
        iterations_per_epoch=iterations_per_epoch,
        seed=seed,
    )


class PlainDistillation:
    """What :func:`distill` returns; it listens to the student inside its ``with`` block.

    Args:
        student: See :func:`distill`.
        settings: Of the distillation.
        images: See :func:`distill`.
        iterations_per_epoch: See :func:`distill`.
        seed: See :func:`distill`.

    Attributes:
        measured: Distance and weighted distance of each term in the last :meth:`loss`.
        iteration: Number of calls of :meth:`loss`.
    """

    def __init__(
        self,
        student: nn.Module,
        settings: DistillSettings,
        *,
        images: Mapping[str, Any] | None = None,
        iterations_per_epoch: int | None = None,
        seed: int = 0,
    ) -> None:
        wrapped: Any = student
        is_wrapped = isinstance(student, DistributedDataParallel | DataParallel)
        self._student: Any = wrapped.module if is_wrapped else student
        self._resizes = torchvision_detectors.is_one(self._student)
        self._epoch = _epoch_length(settings.terms, iterations_per_epoch)
        own = format_of(self._student)
        if images is not None:
            own = KnownFormat(StatedImages.parse(f"{_OWNER} images", images).format(), "as set")
        self._distillation = settings.build(
            self._student, own.format, _run, self._image_size, seed=seed
        )
        if own.format is not None:
            is_guess = images is None and not self._resizes
            converts = any(teacher.converts_images for teacher in self.teachers.values())
            level = logging.WARNING if is_guess and converts else logging.INFO
            message = "%s student: its images have %s; if not, say so by images=dict(...)"
            logging.getLogger(__name__).log(level, message, _OWNER, own)
        for teacher in self.teachers.values():
            logging.getLogger(__name__).info(teacher.introduction)
        for term in self._distillation.terms_on_two_images:
            logging.getLogger(__name__).info(
                "%s %s: it takes one sample an image, and BatchNormalizer needs two in every "
                "batch: drop_last=True, if the loader's last batch may hold one",
                _OWNER,
                term.key,
            )
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._distillation.synchronize()
        self.measured: dict[str, Measured] = {}
        self.iteration = 0
        self._batch: torchvision_detectors.Batch | None = None
        # In a forward pass of the student's, and after one that loss() has not seen yet.
        self._is_listening = self._has_run = False
        self._handles: list[Any] = []
        # Whether an optimizer has stepped the student, and the projectors.
        self._stepped = [False, False]

    def _image_size(self) -> tuple[int, int]:
        """A guess: the loop's images come when all is built."""
        fixed = torchvision_detectors.fixed_size(self._student) if self._resizes else None
        return fixed or _USUAL_SIZE

    @property
    def teachers(self) -> dict[str, FeatureSource]:
        """The built teachers by name; their ``introduction`` tells weights and input, and is logged
        (``mmkd.engine.plain``, INFO)."""
        return self._distillation.teachers

    @property
    def terms(self) -> list[Term]:
        """What is compared."""
        return self._distillation.terms

    def parameters(self) -> Iterator[nn.Parameter]:
        """The projectors' parameters, for the optimizer; none of them is the student's."""
        return iter(self._distillation.parameters)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs beside the student's and the optimizer's state."""
        return dict(
            distillers=self._distillation.state_dict(),
            iteration=self.iteration,
            watch=self._distillation.watch.state_dict(),
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned.

        Raises:
            RuntimeError: It is of other terms.
            ValueError: It is something else.
        """
        if not isinstance(state, Mapping) or {"distillers", "iteration"} - set(state):
            raise InputError.at(_OWNER, "load_state_dict takes what state_dict() has returned")
        self._distillation.load_state_dict(state["distillers"])
        self._distillation.watch.load_state_dict(state.get("watch"))
        self.iteration = state["iteration"]

    # Listening ----------------------------------------------------------------------------

    def __enter__(self) -> PlainDistillation:
        if self._handles:
            raise TermError.at(_OWNER, "the with block of this distillation was entered already")
        self._distillation.attach()
        student = self._student
        self._handles = [
            student.register_forward_pre_hook(OwnHook(student, self._before_forward)),
            student.register_forward_hook(OwnHook(student, self._after_forward)),
        ]
        if self._resizes:
            transform = student.transform
            listen = OwnHook(transform, self._after_transform)
            self._handles.append(transform.register_forward_hook(listen))
        self._stepped = [False, not self._distillation.parameters]
        self._handles.append(register_optimizer_step_post_hook(self._note_step))
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        try:
            if kind is None:
                self._check_loss_was_called()
                self._warn()
        finally:
            self._distillation.release()
            self._distillation.detach()
            self._is_listening = self._has_run = False
            self._batch = None

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        if not module.training or not torch.is_grad_enabled():
            return
        self._check_loss_was_called()
        self._warn()
        self._distillation.begin(self.iteration, self._epoch)
        self._distillation.arm()
        self._is_listening = True

    def _after_transform(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._is_listening:
            self._batch = torchvision_detectors.Batch.of(output)

    def _after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        """Not called where the forward pass has failed, which may then be tried again."""
        if self._is_listening:
            self._distillation.rest()
            self._is_listening, self._has_run = False, True

    def dynamics(
        self,
        images: Tensor | Sequence[Tensor],
        targets: Targets | Sequence[Mapping[str, Tensor]] | None = None,
        *,
        held_out: bool = False,
        blocks: Sequence[str] = (),
    ) -> dict[str, Measures]:
        """What goes on inside each term, of images that stay the same; neither student nor
        distillation change. A :class:`mmkd.dynamics_file.DynamicsFile` keeps it.

        Args:
            images: As for :meth:`loss`.
            targets: What they show, in pixels of what the student's backbone sees; of torchvision's
                detectors also as their forward pass takes them, in pixels of the images.
            held_out: Whether they are not trained on: then without the gradients and the projector
                of the training, which no images decide (:func:`mmkd.dynamics.recorded`).
            blocks: Modules up to which the student's equivariance to translation is told
                (:class:`mmkd.dynamics.DynamicsSettings`), each under its path.

        Returns:
            By term and measure a number; of measures that end in ``_matrix`` a matrix.

        Raises:
            ValueError: A block that does not fit.
        """
        context = None
        if self._resizes:
            shown = None if isinstance(targets, Targets) else targets
            with evaluation_mode(self._student), torch.no_grad():
                transformed = self._student.transform(list(images), shown)
            batch = torchvision_detectors.Batch.of(transformed)
            images, context = batch.images, batch.sizes
            targets = targets if isinstance(targets, Targets) else batch.targets
        if targets is not None and not isinstance(targets, Targets):
            raise InputError.at(
                _OWNER, f"targets must be mmkd.targets.Targets, got a {type(targets).__name__}"
            )
        inputs = _checked(images)
        probe = ProbeImages(
            inputs,
            targets or Targets((inputs.shape[2], inputs.shape[3])),
            partial(_run, self._student),
            context,
        )
        if held_out:
            return dynamics_of(self._distillation, probe, blocks)
        return recorded(self._distillation, dict(train=probe), blocks)["train"]

    def _check_loss_was_called(self) -> None:
        if self._has_run and self._distillation.fired:
            self._has_run = False
            raise TermError.at(
                _OWNER,
                "the student ran in training mode, and no distillation.loss(images) "
                "followed, so that this batch was trained without distillation: call it after each "
                "forward pass, or pass images that nothing is learned from under torch.no_grad()",
            )

    def _warn(self) -> None:
        """Of the iterations before, whose backward pass is over by now."""
        for warning in self._distillation.watch.due():
            logging.getLogger(__name__).warning(warning.text)

    def _note_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Whether whoever steps the student steps the projectors too."""
        if all(self._stepped):
            return
        found = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for index, side in enumerate((self._student.parameters(), self.parameters())):
            self._stepped[index] |= any(id(parameter) in found for parameter in side)

    def _check_optimizers(self) -> None:
        if self._stepped == [True, False]:
            raise TermError.at(
                _OWNER,
                "an optimizer has stepped the student's parameters and none the "
                "projectors', which would stay at random: give it "
                "[*student.parameters(), *distillation.parameters()]",
            )

    # Each iteration -----------------------------------------------------------------------

    def loss(self, images: Tensor | Sequence[Tensor], targets: Targets | None = None) -> Tensor:
        """All terms of the student's last forward pass, weighted and summed.

        Args:
            images: Those that the student was given: ``[N, 3, H, W]``, or torchvision's list of
                images, of which the teacher sees what the student's backbone saw.
            targets: What the images show, for losses that take it; known of torchvision's
                detectors.

        Returns:
            A scalar, 0 where no term is on.

        Raises:
            RuntimeError: The student has not run in training mode since the last call; a tapped
                module did not run; in a term's first iterations also: it has no gradient, stays at
                0 or is not finite.
            ValueError: A list of images, for another student than torchvision's detectors.
        """
        distillation = self._distillation
        self._check_optimizers()
        self.measured = {}
        if not self._has_run:
            raise TermError.at(
                _OWNER,
                "loss() follows a forward pass of the student in training mode, inside "
                "the with block; there was none since the last",
            )
        self._has_run = False
        inputs, sizes = images, None
        if self._batch is not None:
            inputs, sizes = self._batch.images, self._batch.sizes
            targets = targets or self._batch.targets
        inputs = _checked(inputs)
        if distillation.fired:
            self.measured = distillation.measure(inputs, sizes, targets)
        # Whatever comes next belongs to another forward pass.
        distillation.release()
        self._batch = None
        self.iteration += 1
        weighted = [each.weighted for each in self.measured.values()]
        return torch.stack(weighted).sum() if weighted else inputs.new_zeros(())


def _run(model: nn.Module, images: Tensor, context: Any = None) -> Any:
    if torchvision_detectors.is_one(model):
        return torchvision_detectors.forward(model, images)
    return model(images)


def _checked(images: Any) -> Tensor:
    if not isinstance(images, Tensor):
        found = type(images).__name__
        raise InputError.at(_OWNER, f"images must be [N, 3, H, W], got a {found}")
    return images


def _epoch_length(terms: Sequence[Term], iterations_per_epoch: int | None) -> int:
    if iterations_per_epoch is not None:
        if not isinstance(iterations_per_epoch, int) or iterations_per_epoch < 1:
            raise InputError.at(
                f"{_OWNER} iterations_per_epoch",
                f"expected 1 or more, got {iterations_per_epoch!r}",
            )
        return iterations_per_epoch
    for term in terms:
        schedule = term.schedule
        if schedule.by_epoch and (schedule.begin or schedule.ramp or schedule.end is not None):
            where = f"{_OWNER} {term.key}.schedule"
            raise InputError.at(
                where,
                "it counts epochs, whose length is not known: give iterations_per_epoch, or "
                "by_epoch=False",
            )
    return 1
