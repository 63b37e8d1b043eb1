"""Single kernels in PyTorch: what torch_cases.py is for losses and whole steps. Experts write into
buffers that are kept, without autograd; users call the function and let it allocate."""
import importlib
import math

import torch
from torch.nn import functional as F

aten = torch.ops.aten


class Kernel:
    """run() leaves self.result: one tensor or several, whose norms are the digest."""

    variants = ("expert", "users")

    def __init__(self, variant, tensors):
        self.users = variant == "users"
        self.t = tensors
        self.result = None

    def digest(self):
        """Of the first run, which it makes."""
        self.run()
        results = self.result if isinstance(self.result, (tuple, list)) else [self.result]
        return [r.detach().double().norm().item() for r in results]


class Unavailable(Exception):
    pass


def compiled(f, mode=None, frozen=False):
    """As one graph for these shapes; what would run eagerly instead is an error. `frozen`: weights are
    constants, which inductor lays out for the processor's products."""
    if not hasattr(torch, "compile"):
        raise Unavailable("this PyTorch has no torch.compile")
    from torch import _dynamo

    for name in ("fail_on_recompile_limit_hit", "fail_on_cache_limit_hit"):  # by version
        if hasattr(_dynamo.config, name):
            setattr(_dynamo.config, name, True)
    importlib.import_module("torch._inductor.config").freezing = frozen
    return torch.compile(f, mode=mode, dynamic=False, fullgraph=True)


class Softmax(Kernel):
    def __init__(self, variant, _dtype, tensors, log, backward, _rows, _classes):
        super().__init__(variant, tensors)
        like = tensors["y" if backward else "x"]
        out = torch.empty_like(like)
        if backward:
            f = aten._log_softmax_backward_data if log else aten._softmax_backward_data
            arguments = (tensors["dy"], tensors["y"], 1, like.dtype)
            out_name = {"out": out} if log else {"grad_input": out}
        else:
            f = aten._log_softmax if log else aten._softmax
            arguments, out_name = (tensors["x"], 1, False), {"out": out}
        self.call = (lambda: f(*arguments)) if self.users else (lambda: f.out(*arguments, **out_name))

    def run(self):
        self.result = self.call()


class Product(Kernel):
    def __init__(self, variant, _dtype, tensors, kind, m, n, _k):
        super().__init__(variant, tensors)
        a, b = tensors["a"], tensors["b"]
        if kind == "nt_bias":
            bias, out = tensors["bias"], torch.empty(int(m), int(n), dtype=a.dtype)
            self.call = (lambda: F.linear(a, b, bias)) if self.users else (lambda: torch.addmm(bias, a, b.t(), out=out))
        else:
            left = a.t() if kind == "tn" else a
            out = torch.empty(int(m), int(n), dtype=a.dtype)
            self.call = (lambda: left @ b) if self.users else (lambda: torch.mm(left, b, out=out))

    def run(self):
        self.result = self.call()


def to_nchw(x, dtype, channels_last):
    """(N, H, W, C) to PyTorch's axes, in the memory order asked for."""
    x = x.permute(0, 3, 1, 2).to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


class Convolution(Kernel):
    variants = ("expert", "nchw", "users")

    def __init__(self, variant, dtype, tensors, which, _n, _side, channels, filters, kernel, stride):
        super().__init__(variant, tensors)
        last = variant == "expert"
        kernel, stride = int(kernel), int(stride)
        t = {}
        for name, value in tensors.items():
            t[name] = value.permute(0, 3, 1, 2) if name == "weight" else to_nchw(value, dtype, last)
        if "weight" in t:  # f32 parameters, as under autocast
            layout = torch.channels_last if last else torch.contiguous_format
            t["weight"] = t["weight"].contiguous(memory_format=layout)
        kind = torch.bfloat16 if dtype == "bf16" else torch.float32
        padding = kernel // 2
        if which is None:
            self.call = lambda: F.conv2d(t["x"], t["weight"].to(kind), None, stride, padding)
            return
        data = which == "_backward_data"
        batch, side = t["dy"].shape[0], t["dy"].shape[2] * stride
        if data:
            t["x"] = to_nchw(torch.empty(batch, side, side, int(channels)), dtype, last)
        else:
            t["weight"] = torch.empty(int(filters), int(channels), kernel, kernel)
            if last:
                t["weight"] = t["weight"].contiguous(memory_format=torch.channels_last)
        mask = [data, not data, False]

        def backward():
            gradients = aten.convolution_backward(
                t["dy"], t["x"], t["weight"].to(kind), None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, mask)
            return gradients[0] if data else gradients[1].float()

        self.call = backward

    def run(self):
        with torch.no_grad():
            self.result = self.call()


def batch_of(rows):
    """A batch whose images are squares of `rows` pixels in all: 128 on a CPU, 1,024 on a GPU."""
    for batch in (128, 1024):
        if math.isqrt(rows // batch) ** 2 * batch == rows:
            return batch
    raise Unavailable(f"{rows} rows are no batch of squares")


class BatchNorm(Kernel):
    variants = ("expert", "nchw", "users", "compile")

    def __init__(self, variant, dtype, tensors, residual, backward, rows, channels):
        super().__init__(variant, tensors)
        batch = batch_of(int(rows))
        side = math.isqrt(int(rows) // batch)
        shape = (batch, side, side, int(channels))
        images = {k: to_nchw(v.reshape(shape), dtype, variant in ("expert", "compile")) for k, v in tensors.items() if v.dim() == 2}
        weight, bias = tensors["weight"], tensors["bias"]
        inputs = [images["x"], weight, bias] + ([images["residual"]] if residual else [])

        def forward():
            y = F.batch_norm(images["x"], None, None, weight, bias, training=True)
            if self.users:
                return F.relu(y + images["residual"] if residual else y)
            if residual:
                y = y.add_(images["residual"])
            return y.relu_()

        if variant == "compile":
            if hasattr(torch, "_functorch"):  # the backward runs again and again
                torch._functorch.config.donated_buffer = False
            forward = compiled(forward)
        if not backward:
            def inference():
                with torch.no_grad():
                    return forward()
            self.call = inference
            return
        for tensor in inputs:
            tensor.requires_grad_(True)
        y = forward()
        self.call = lambda: torch.autograd.grad(y, inputs, images["dy"], retain_graph=True)[:3]

    def run(self):
        self.result = self.call()


class Attention(Kernel):
    """q, k and v side by side in one tensor. `expert`: padded to the longest sequence with a mask, as models run it;
    `loop`: one sequence after another, without padding. The faster one counts."""

    variants = ("expert", "loop", "users")

    def __init__(self, variant, _dtype, tensors, which, heads, size, _name):
        super().__init__(variant, tensors)
        heads, size = int(heads), int(size)
        width, at = heads * size, tensors["starts"].tolist()
        lengths = [b - a for a, b in zip(at, at[1:])]
        longest, full = max(lengths), len(set(lengths)) == 1
        fused = getattr(F, "scaled_dot_product_attention", None)

        def attend(q, k, v, mask):
            if fused:
                return fused(q, k, v, attn_mask=mask)
            z = (q @ k.transpose(-1, -2)) * size ** -0.5
            return torch.softmax(z if mask is None else z + mask, -1) @ v

        qkv, dout = tensors["qkv"], tensors["dout"]
        rows = [torch.arange(n) + i * longest for i, n in enumerate(lengths)]
        self.rows = torch.cat(rows)
        if variant == "loop":
            def forward(qkv):
                parts = []
                for part in qkv.split(lengths):
                    q, k, v = part.view(1, -1, 3, heads, size).permute(2, 0, 3, 1, 4)
                    parts.append(attend(q, k, v, None)[0].transpose(0, 1).reshape(-1, width))
                return torch.cat(parts)
            self.rows = None
        else:
            def padded(x):
                y = x.new_zeros(len(lengths) * longest, x.shape[1])
                y[self.rows] = x
                return y
            qkv, dout = padded(qkv), padded(dout)
            mask = None
            if not full:
                mask = torch.zeros(len(lengths), 1, 1, longest, dtype=qkv.dtype)
                for i, n in enumerate(lengths):
                    mask[i, :, :, n:] = torch.finfo(qkv.dtype).min / 2

            def forward(qkv):
                q, k, v = qkv.view(-1, longest, 3, heads, size).permute(2, 0, 3, 1, 4)
                return attend(q, k, v, mask).transpose(1, 2).reshape(-1, width)

        if which is None:
            def call():
                with torch.no_grad():
                    return (forward(qkv),)
        else:
            qkv = qkv.clone().requires_grad_()
            y = forward(qkv) if which == "_backward" else None

            def call():
                out = y if y is not None else forward(qkv)
                (gradient,) = torch.autograd.grad(out, qkv, dout, retain_graph=y is not None)
                return (gradient,) if y is not None else (out, gradient)
        self.call = call

    def run(self):
        self.result = self.call()

    def digest(self):
        self.run()
        return [(r if self.rows is None else r[self.rows]).detach().double().norm().item() for r in self.result]


class LayerNorm(Kernel):
    def __init__(self, variant, dtype, tensors, residual, which, _rows, channels):
        super().__init__(variant, tensors)
        t = dict(tensors)
        kind = torch.bfloat16 if dtype == "bf16" else torch.float32
        t["weight"], t["bias"] = t["weight"].to(kind), t["bias"].to(kind)
        names = ["x"] + (["residual"] if residual else []) + ["weight", "bias"]

        def forward():
            x = t["x"] + t["residual"] if residual else t["x"]
            return F.layer_norm(x, (int(channels),), t["weight"], t["bias"], 1e-5)

        if which is None:
            def call():
                with torch.no_grad():
                    return (forward(),)
        else:
            for name in names:
                t[name].requires_grad_()
            y = forward() if which == "_backward" else None

            def call():
                out = y if y is not None else forward()
                gradients = torch.autograd.grad(out, [t[n] for n in names], t["dy"], retain_graph=y is not None)
                results = (gradients[0], *gradients[-2:])
                return results if y is not None else (out, *results)
        self.call = call

    def run(self):
        self.result = self.call()


class Embedding(Kernel):
    """Words, positions and types. Experts let the gathers write into a buffer that is kept."""

    def __init__(self, variant, _dtype, tensors, backward, _rows, _columns, _words):
        super().__init__(variant, tensors)
        t = tensors
        tables = [t[name] for name in ("word", "position", "type")]
        ids = [t[name].long() for name in ("ids", "at", "segments")]
        if not backward:
            y = torch.empty_like(t["dy"])

            def expert():
                torch.index_select(tables[0], 0, ids[0], out=y)
                for table, at in zip(tables[1:], ids[1:]):
                    y.add_(table.index_select(0, at))
                return y

            def users():
                return sum(F.embedding(at, table) for at, table in zip(ids, tables))

            def call():
                with torch.no_grad():
                    return users() if self.users else expert()

            self.call = call
            return
        for table in tables:
            table.requires_grad_(True)
        gradients = [torch.zeros_like(table) for table in tables]

        def by_hand():  # added up in place, as an optimizer's buffers allow
            for gradient, at in zip(gradients, ids):
                gradient.zero_().index_add_(0, at, t["dy"])
            return gradients

        def by_autograd():
            y = sum(F.embedding(at, table) for at, table in zip(ids, tables))
            return torch.autograd.grad(y, tables, t["dy"])

        self.call = by_autograd if self.users else by_hand

    def run(self):
        self.result = self.call()


class LinearLoss(Kernel):
    """Logits of student and teacher from their last layers' inputs, (1 - lambda) CE + lambda tau^2 KL with lambda
    0.5 and tau 2 (or CE alone), and the gradients of features, weight and bias."""

    variants = ("expert", "users", "compile")

    def __init__(self, variant, _dtype, tensors, kind, _recompute, rows, _columns, _classes):
        super().__init__(variant, tensors)
        t, tau, rows = tensors, 2.0, int(rows)
        x, weight, bias = (t[name] for name in ("features", "weight", "bias"))
        targets, taught = t["targets"].long(), kind == "kd"
        leaves = [v.requires_grad_(True) for v in (x, weight, bias)]

        def loss():
            logits = F.linear(x, weight, bias)
            ce = F.cross_entropy(logits, targets)
            if not taught:
                return ce
            with torch.no_grad():
                p = F.softmax(F.linear(t["teacher_features"], t["teacher_weight"], t["teacher_bias"]) / tau, -1)
            kl = F.kl_div(F.log_softmax(logits / tau, -1), p, reduction="batchmean")
            return 0.5 * ce + 0.5 * tau * tau * kl

        def by_autograd(f):
            total = f()
            return [total, *torch.autograd.grad(total, leaves)]

        logits = torch.empty(rows, weight.shape[0], dtype=x.dtype)
        other = torch.empty_like(logits) if taught else None

        def by_hand():  # two buffers of the logits' size, kept, and the gradient in place
            with torch.no_grad():
                torch.addmm(bias, x, weight.t(), out=logits)
                at = torch.arange(rows)
                lse = torch.logsumexp(logits, -1)
                total = (lse - logits[at, targets]).mean()
                factor = 0.5 if taught else 1.0
                if taught:
                    torch.addmm(t["teacher_bias"], t["teacher_features"], t["teacher_weight"].t(), out=other)
                    other.div_(tau)
                    log_p, log_q = torch.log_softmax(other, -1), torch.log_softmax(logits / tau, -1)
                    p, q = log_p.exp(), log_q.exp()
                    kl = (p * (log_p - log_q)).sum() / rows
                    total = 0.5 * total + 0.5 * tau * tau * kl
                ds = logits.sub_(lse[:, None]).exp_()
                ds[at, targets] -= 1
                ds.mul_(factor / rows)
                if taught:
                    ds.add_(q.sub_(p), alpha=0.5 * tau / rows)
                return [total, ds @ weight, ds.t() @ x, ds.sum(0)]

        if variant == "compile":
            f = compiled(loss)
            self.call = lambda: by_autograd(f)
        else:
            self.call = (lambda: by_autograd(loss)) if self.users else by_hand

    def run(self):
        self.result = self.call()


CASES = [
    (r"embedding(_and_backward)?/(\d+)x(\d+)x(\d+)", Embedding),
    (r"linear_distillation_loss/(ce|kd)(_recompute)?/(\d+)x(\d+)x(\d+)", LinearLoss),
    (r"attention(_backward|_both)?/(\d+)x(\d+)/(\S+)", Attention),
    (r"layer_norm(_residual)?(_backward|_both)?/(\d+)x(\d+)", LayerNorm),
    (r"(log_)?softmax(_backward)?/(\d+)x(\d+)", Softmax),
    (r"gemm/(nt_bias|nn|tn)/(\d+)x(\d+)x(\d+)", Product),
    (r"conv2d(_backward_data|_backward_weight)?/(\d+)x(\d+)x(\d+)_(\d+)_k(\d+)s(\d+)", Convolution),
    (r"batch_norm(_add)?_relu(_backward)?/(\d+)x(\d+)", BatchNorm),
]
