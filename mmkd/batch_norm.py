"""BatchNorm that a single row does not stop."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import batch_norm

__all__ = ["BatchNorm"]


class BatchNorm(nn.BatchNorm2d):
    """PyTorch's, of any rank. A channel with one value, as of one image's pooled map, has no
    variance: in a training, too, it is normalised as in evaluation, and counts for no statistics.

    Its base is one by which Ultralytics' trainer knows what has no weight decay.

    Shapes: ``[N, C, ...]`` to the same.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any rank will do."""

    def forward(self, input: Tensor) -> Tensor:
        """See above."""
        if not self.training or input.numel() > input.shape[1]:
            return super().forward(input)
        statistics = self.running_mean, self.running_var
        return batch_norm(input, *statistics, self.weight, self.bias, eps=self.eps)
