"""Tensors that say they lie on a GPU, and an error where they meet tensors on the CPU.

`Elsewhere` tensors live in the memory of the CPU and compute as it does. What they tell of their
device is another thing, and inside of :func:`mixing_forbidden` every call of torch looks at the
tensors it is given, as a real GPU would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda:0")
CPU = torch.device("cpu")
Call = Callable[..., Any]


class Elsewhere(Tensor):
    """A tensor in the memory of the CPU that says it is on `GPU`."""

    @classmethod
    def __torch_function__(
        cls, func: Call, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        return _call(func, args, dict(kwargs or {}))


class MixedDevicesError(RuntimeError):
    """Tensors of two devices met, or loops of the CPU met a tensor of another."""


def _getter(name: str) -> Call:
    get: Call = getattr(Tensor, name).__get__
    return get


TELLS: dict[Call, Any] = {
    _getter("device"): GPU,
    _getter("is_cpu"): False,
    _getter("is_cuda"): True,
    Tensor.get_device: 0,
    Tensor.is_pinned: False,
}
"""What is asked of a tensor about its device, and what one elsewhere says."""
CROSSES: frozenset[Call] = frozenset({Tensor.copy_, Tensor.type_as})
"""What takes tensors of two devices."""


class NoMixing(TorchFunctionMode):
    """Looks at every call of torch, and keeps what is elsewhere there."""

    def __torch_function__(
        self, func: Call, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        return _call(func, args, dict(kwargs or {}))


def _call(func: Call, args: Any, given: dict[str, Any]) -> Any:
    """What a call of torch gives; raises MixedDevicesError as a GPU would."""
    tensors = [t for t in tree_flatten((args, given))[0] if isinstance(t, Tensor)]
    away = [t for t in tensors if isinstance(t, Elsewhere)]
    if func in TELLS and away:
        return TELLS[func]
    if func in (Tensor.numpy, Tensor.__array__) and away:
        raise MixedDevicesError(f"can't convert a tensor on {GPU} to numpy")
    if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
        return _moved(func, args, given)
    target = _on_cpu(given)
    if func in (Tensor.__getitem__, Tensor.__setitem__):
        _check_index(func, args)
    elif func not in CROSSES:
        _check(func, tensors)
    if func is torch.mm and away and given.get("out_dtype") == torch.float32:
        args, given = tuple(t.float() for t in args), {}  # a CPU has no such product
    with torch._C.DisableTorchFunctionSubclass():
        result = func(*args, **given)
    if args and result is args[0]:
        return result  # written in place
    there = bool(away) if target is None else target != CPU
    if func is Tensor.copy_:  # what is copied into a tensor lies where that does
        there = isinstance(args[0], Elsewhere)
    return tree_map(lambda t: _marked(t, there), result)


def _on_cpu(given: dict[str, Any]) -> torch.device | None:
    """The device that a call asks for; its arguments now say the CPU in place of the GPU."""
    wanted = given.get("device")
    if wanted is None:
        return None
    given.pop("pin_memory", None)
    device = torch.device(wanted)
    if device.type == "meta":
        return CPU
    given["device"] = CPU
    return device


def _marked(value: Any, there: bool) -> Any:
    if not isinstance(value, Tensor) or value.is_meta or isinstance(value, Elsewhere) == there:
        return value
    if isinstance(value, torch.nn.Parameter):
        return value
    return _as(value, Elsewhere if there else Tensor)


def _as(value: Tensor, kind: type[Tensor]) -> Tensor:
    """The same memory, and the same place in autograd's graph, under another class."""
    with torch._C.DisableTorchFunction():
        return value.as_subclass(kind)


def _moved(func: Call, args: Any, given: dict[str, Any]) -> Any:
    """`tensor.to(...)`, which is a copy where the device changes."""
    value, rest, target = args[0], list(args[1:]), None
    if func is Tensor.cpu:
        target, rest = CPU, []
    elif func is Tensor.cuda:
        target, rest = GPU, []
    elif "device" in given:
        wanted = given.pop("device")
        target = None if wanted is None else torch.device(wanted)
    elif rest and isinstance(rest[0], (str, torch.device)):
        target = torch.device(rest.pop(0))
    elif rest and isinstance(rest[0], Tensor):
        other = rest.pop(0)
        target, given = other.device, {**given, "dtype": other.dtype}
    if target is not None and target.type == "meta":
        return Tensor.to(_as(value, Tensor), "meta", *rest, **given)
    before = isinstance(value, Elsewhere)
    there = before if target is None else target.type != "cpu"
    if there != before:
        value = _as(value.clone(), Elsewhere if there else Tensor)
    with torch._C.DisableTorchFunction():
        result = Tensor.to(value, *rest, **given) if rest or given else value
    return _marked(result, there)


def _check(func: Call, tensors: list[Tensor]) -> None:
    away = [t for t in tensors if isinstance(t, Elsewhere)]
    here = [t for t in tensors if not isinstance(t, Elsewhere) and t.dim() > 0 and not t.is_meta]
    if away and here:
        name = getattr(func, "__name__", str(func))
        shapes = [list(t.shape) for t in (*away[:2], *here[:2])]
        raise MixedDevicesError(
            f"{name}: expected all tensors to be on the same device, but found {GPU} and cpu "
            f"({shapes})"
        )


def _check_index(func: Call, args: Any) -> None:
    """Indices may lie on the CPU; what they index, and what is put there by them, may not."""
    value, index = args[:2]
    indices = [t for t in tree_flatten(index)[0] if isinstance(t, Tensor)]
    if not isinstance(value, Elsewhere):
        _check(func, [value, *indices])
    if func is Tensor.__setitem__ and indices and isinstance(args[2], Tensor):
        _check(func, [value, args[2]])


@contextmanager
def mixing_forbidden() -> Iterator[None]:
    """Context in which this thread's tensors on `cuda` are `Elsewhere`, and must not be mixed."""
    with NoMixing():
        yield
