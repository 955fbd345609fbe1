"""The ranks of a process group: what they must agree on, and the collectives of torch they use.

A rank that fails alone would leave the others waiting for it.  So each rank's outcome travels with
its data: where one fails, all raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from wgpu_q4.errors import RankError

PreparedT = TypeVar("PreparedT")


class Ranks:
    """A process group of which this process is a member.

    Attributes:
        group: the group.
        rank: the place of this process in it.
        count: how many processes it has.

    Args:
        group: a ``torch.distributed.ProcessGroup``.

    Raises:
        TypeError: something else.
        RankError: ``torch.distributed`` is not initialized, or this process is not in the group.
    """

    def __init__(self, group: object) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise RankError(
                "process_group needs torch.distributed, which is not initialized: call "
                "torch.distributed.init_process_group first, and make the group after it"
            )
        if group is dist.GroupMember.NON_GROUP_MEMBER:
            raise RankError(
                f"rank {dist.get_rank()} is not in the process group: only its members tie"
            )
        if not isinstance(group, dist.ProcessGroup):
            raise TypeError(
                f"process_group must be a torch.distributed.ProcessGroup, not "
                f"{type(group).__name__}: torch.distributed.group.WORLD has all ranks, and "
                f"mesh.get_group() is that of a device mesh"
            )
        self.group = group
        self.rank, self.count = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise RankError(
                f"rank {dist.get_rank()} is not in the process group: only its members tie"
            )

    def agree(self, prepare: Callable[[], tuple[PreparedT, Mapping[str, object]]]) -> PreparedT:
        """Return what ``prepare`` made, once it has succeeded on all ranks, in the same way.

        Args:
            prepare: returns its outcome, and what must be equal everywhere, in words.

        Raises:
            RankError: another rank failed, or something differs; on all ranks.
            Exception: what ``prepare`` raised on this rank.
        """
        prepared: list[PreparedT] = []
        failure: Exception | None = None
        mine: tuple[str | None, Mapping[str, object]] = (None, {})
        try:
            outcome, facts = prepare()
            prepared.append(outcome)
            mine = None, facts
        except Exception as error:  # whatever it is, the others must not wait for this rank
            failure = error
            mine = f"{type(error).__name__}: {error}", {}
        every: list[Any] = [None] * self.count
        dist.all_gather_object(every, mine, group=self.group)
        if failure is not None:
            raise failure
        for rank, (said, _) in enumerate(every):
            if said is not None:
                raise RankError(f"nothing was changed, as rank {rank} failed with {said}")
        (_, first), *others = every
        for rank, (_, facts) in enumerate(others, 1):
            for name in first:
                if facts[name] != first[name]:
                    raise RankError(
                        f"ranks 0 and {rank} disagree on {name}: {first[name]} and {facts[name]}. "
                        f"All ranks must tie the same model in the same way; nothing was changed"
                    )
        return prepared[0]

    def gather(self, nbytes: int, fill: Callable[[Tensor], None], device: torch.device) -> Tensor:
        """Return the bytes of all ranks, uint8 ``[ranks, nbytes]``, on the CPU or on ``device``.

        Args:
            nbytes: bytes of each rank, the same on all; a multiple of 8.
            fill: writes those of this rank.
            device: the torch device on which the group works.

        Raises:
            RankError: ``fill`` failed on another rank.
            Exception: what ``fill`` raised on this one.
        """
        mine = torch.zeros(nbytes + 8, dtype=torch.uint8)
        failure = _failure_of(fill, mine[:nbytes])
        mine[nbytes] = failure is not None
        every = torch.empty((self.count, len(mine)), dtype=torch.uint8, device=device)
        dist.all_gather(list(every), mine.to(device), group=self.group)
        failed = every[:, nbytes].nonzero()[:, 0].tolist()
        _check(failure, [f"rank {rank}" for rank in failed])
        return every[:, :nbytes]

    def add(self, mine: Tensor, fill: Callable[[Tensor], None], device: torch.device) -> Tensor:
        """Return the sum of all ranks' numbers.

        Args:
            mine: float32 or int32 ``[N + 1]``, zeros.
            fill: writes the N numbers of this rank.
            device: the torch device on which the group works.

        Returns:
            ``[N]`` on ``device``.

        Raises:
            RankError: ``fill`` failed on another rank.
            Exception: what ``fill`` raised on this one.
        """
        failure = _failure_of(fill, mine[:-1])
        mine[-1] = failure is not None
        total = mine.to(device)
        dist.all_reduce(total, group=self.group)
        _check(failure, ["another rank"] if total[-1].item() else [])
        return total[:-1]

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise RankError(
            "a model tied over the ranks of a process group cannot be pickled, as the group lives "
            "in this process: save model.state_dict(), which holds the rows of this rank"
        )


def _failure_of(fill: Callable[[Tensor], None], mine: Tensor) -> Exception | None:
    try:
        fill(mine)
    except Exception as error:  # whatever it is, the others must not wait for this rank
        return error
    return None


def _check(failure: Exception | None, failed: list[str]) -> None:
    if failure is not None:
        raise failure
    if failed:
        raise RankError(f"{failed[0]} failed in this call; the error that it raised says why")
