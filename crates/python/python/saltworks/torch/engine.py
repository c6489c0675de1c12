"""Torch modules whose parameters are in the engine's memory, and the engine's calls as nodes of torch's
graph."""

import threading

import torch
from torch import nn

# torch.compile leaves calls of the engine to Python: one break of the graph for each call.
not_compiled = torch.compiler.disable if hasattr(torch, "compiler") else torch._dynamo.disable

DTYPES = (torch.float32, torch.uint8)


def pixels(images):
    """Images as the engine reads them."""
    try:
        images = torch.as_tensor(images)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"images are {type(images).__name__}, expected a tensor [B, C, H, W]: {error}") from error
    if images.requires_grad and torch.is_grad_enabled():
        raise ValueError("images require a gradient, which the engine does not compute. Give images.detach()")
    if images.device.type != "cpu":
        raise ValueError(f"images are on {images.device}, and the engine computes on the CPU. Give images.cpu()")
    if images.dtype not in DTYPES:
        raise ValueError(f"images are {images.dtype}, expected torch.float32 or torch.uint8. Give images.float()")
    return images.detach()


def tokens(name, given):
    """Tokens [B, L, D] of a module's input, in float32 on the CPU."""
    if not isinstance(given, torch.Tensor) or given.dim() != 3:
        found = list(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
        raise ValueError(f"{name} is {found}, expected a tensor [B, L, D]")
    if given.device.type != "cpu":
        raise ValueError(f"{name} is on {given.device}, and the engine computes on the CPU. Give {name}.cpu()")
    return given.float()


class Binding:
    """How a module reaches the engine: what it calls, the model's lock, and the weights that its parameters
    are views of."""

    def __init__(self, call, lock, weights):
        self.call, self.lock = call, lock
        self._places = [(name, weight.data.ctypes.data, weight) for name, weight in weights]
        self._addresses = {address for _, address, _ in self._places}

    def holds(self, parameter):
        """Whether it is a view of one of the weights."""
        return parameter.data_ptr() in self._addresses

    def parameters(self, module):
        """(parameter, weight) of all trained weights. Every parameter must be in the engine's memory. A teacher's
        are never trained."""
        own, trained = dict(nn.Module.named_parameters(module)), []
        for name, address, weight in self._places:
            parameter = own.get(name)
            if parameter is None or parameter.data_ptr() != address:
                raise ValueError(
                    f"{name} is no longer on the engine's memory: the tensor, or a module that holds it, was "
                    "replaced (load_state_dict(assign=True), parametrize, another part?). Change it in place, "
                    "as copy_ and load_state_dict do"
                )
            if weight.requires_grad:
                trained.append((parameter, weight))
            elif parameter.requires_grad and torch.is_grad_enabled():
                raise ValueError(
                    f"{name} requires a gradient, but a model's teacher is never trained. For an encoder that "
                    "trains, give copy.deepcopy(model.teacher.backbone)"
                )
        return trained

    def run(self, module, compute, inputs=()):
        """`compute(record)` returns the engine's output, its differentiable tensors, and a function from
        their gradients to those of the inputs. Returns the output, and the tensors in torch's graph."""
        trained = self.parameters(module)
        tensors = [*inputs, *(parameter for parameter, _ in trained)]
        if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
            output, results, _ = compute(False)
            return output, results
        kept, weights = [], [weight for _, weight in trained]
        results = _Call.apply(compute, self.lock, weights, kept, *tensors)
        return kept[0], results


class _Call(torch.autograd.Function):
    """A call of the engine as a node of torch's graph."""

    @staticmethod
    def forward(ctx, compute, lock, weights, kept, *tensors):
        output, results, ctx.walk_back = compute(True)
        kept.append(output)
        ctx.lock, ctx.weights = lock, weights
        ctx.set_materialize_grads(False)
        # torch then refuses a backward pass through weights that have changed.
        ctx.save_for_backward(*tensors)
        return results

    @staticmethod
    def backward(ctx, *gradients):
        if all(gradient is None for gradient in gradients):
            return (None,) * (4 + len(ctx.saved_tensors))
        if torch.is_grad_enabled():
            raise RuntimeError("create_graph=True: the engine has no second derivatives. Remove it")
        inputs = len(ctx.saved_tensors) - len(ctx.weights)
        wanted = ctx.needs_input_grad[4 + inputs :]
        # One thread at a time: another backward pass would use the same gradients.
        with ctx.lock:
            for weight in ctx.weights:
                weight.zero_grad()
            of_inputs = ctx.walk_back(*gradients)
            # Copies, because torch adds to the gradients it gets, or keeps them.
            of_weights = [
                torch.from_numpy(weight.grad.copy()) if want and weight.grad is not None else None
                for weight, want in zip(ctx.weights, wanted)
            ]
        return None, None, None, None, *of_inputs, *of_weights


def call_for_tokens(binding, module, call, inputs=()):
    """The tokens [B, L, D] that `call(record)` computes, in torch's graph. `inputs` are the tensors it reads
    besides images."""

    def compute(record):
        with binding.lock:
            output = call(record)

        def walk_back(gradient):
            # The only result: its gradient is not None.
            gradients = output.backward(gradient.detach().contiguous().numpy())
            return [None if gradient is None else torch.from_numpy(gradient) for gradient in gradients]

        return output, (torch.from_numpy(output.tokens),), walk_back

    _, (made,) = binding.run(module, compute, inputs)
    return made


class EngineModule(nn.Module):
    """A module whose parameters are in the engine's memory, and stay there.

    `_sizes` are the arguments of `_Engine`, which makes an engine for it alone."""

    _Engine = None
    _prefix = ""
    """What stands before the engine's names of its weights."""

    def _weights(self, engine):
        return [(self._prefix + name, weight) for name, weight in engine.named_parameters()]

    def _attach(self, engine):
        self._bound = Binding(engine, threading.Lock(), self._weights(engine))

    def _binding(self):
        """The binding. A copy of a part gets an engine of its own when it is first used."""
        if self.__dict__.get("_bound") is None:
            self._move_to(self._Engine(**self._sizes))
        return self._bound

    def _move_to(self, engine):
        """Moves the parameters into the memory of `engine`. They are the same objects as before, because an
        optimizer may know them."""
        parameters = dict(nn.Module.named_parameters(self))
        for name, weight in self._weights(engine):
            # A first call in inference mode must not make tensors of that mode.
            with torch.inference_mode(False), torch.no_grad():
                view, parameter = torch.from_numpy(weight.data), parameters[name]
                view.copy_(parameter.data)
                parameter.data = view
        self._attach(engine)
        if "_step" in self.__dict__:
            engine.step = self.__dict__.pop("_step")

    def _apply(self, fn, recurse=True):
        bound = self._binding()
        for parameter in nn.Module.parameters(self):
            if not bound.holds(parameter):
                continue  # of a module that somebody added
            moved = fn(parameter.data)
            if moved.dtype != torch.float32 or moved.device.type != "cpu":
                raise ValueError("weights stay float32 on the CPU: the engine computes there")
            if moved.data_ptr() != parameter.data_ptr():
                raise ValueError("weights stay where they are, in the engine's layout of memory")
        return super()._apply(fn, recurse)

    def share_memory(self):
        raise ValueError(
            "share_memory: weights stay in the engine's memory, which is one process's. "
            "Give every process a model of its own (pickle, or load_state_dict)"
        )

    def __copy__(self):
        """A shallow copy has the same engine."""
        self._binding()
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __getstate__(self):
        """For copies and pickles: all except the engine, which is made again. `_step` is that of its draws."""
        state = {key: value for key, value in self.__dict__.items() if key != "_bound"}
        step = getattr(self.__dict__["_bound"].call, "step", None) if "_bound" in self.__dict__ else None
        return state if step is None else state | {"_step": step}
