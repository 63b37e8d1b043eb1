"""The cases of distill_bench in PyTorch. A case is a class whose instance is one work: run(), and
digest(), which makes the first run and says what came out. Its `variants`, of which any but users may
be the fastest:

  expert   as an expert writes it: channels_last, fused or foreach optimizers, frozen networks with
           folded batch norms, no gradients where none are needed, inputs cast once
  nchw     expert, but with contiguous NCHW images
  users    as most code in the wild writes it
  compile  expert under torch.compile; a frozen network's weights are constants (inductor's freezing)
  autotune compile in a mode that measures candidates for every product: minutes, so only if asked for
  jit      (inference) expert, traced, frozen, optimize_for_inference
  manual   (loss, MLP) no autograd: the gradient by hand, into buffers that are kept
"""
import contextlib
import copy
import re

import torch
from torch.nn import functional as F

import models
import tensor_file
import torch_kernels
from torch_kernels import Unavailable

BATCHES = 4  # of a step, rotated, as kBatches of bench/cases/steps.cpp
TORCH_COMPILE = {"compile": None, "autotune": "max-autotune-no-cudagraphs"}  # variants, and their modes
COMPILED = ("jit", *TORCH_COMPILE)  # variants that a version may not be able to make


def load_everything(variant="expert"):
    """One training step of a toy, so that modules, libraries and threads are there; and what compiles."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(288, 4))
    optimizer = optimizer_of(torch.optim.SGD, model.parameters(), "expert", lr=0.1, momentum=0.9)
    for _ in range(2):
        F.cross_entropy(model(torch.ones(4, 3, 8, 8)), torch.zeros(4, dtype=torch.long)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if variant in COMPILED:
        toy = torch.nn.Linear(4, 4)
        with contextlib.suppress(Unavailable, RuntimeError):  # the case itself says why it cannot
            if variant == "jit":
                frozen(toy.eval(), torch.ones(1, 4))
            else:
                compiled(toy)(torch.ones(1, 4)).sum().backward()


def first_line(reason):
    return f"{type(reason).__name__}: {(str(reason).strip().splitlines() or [''])[0]}"


def kind_of(case):
    """The class that has the case, the case's numbers and its dtype; or no class."""
    name, dtype = case.rsplit("/", 1)
    for pattern, kind in CASES:
        match = re.fullmatch(pattern, name)
        if match:
            return kind, match.groups(), dtype
    return None, (), dtype


def variants_of(case):
    kind = kind_of(case)[0]
    return list(kind.variants) if kind else []


def prepare(case, variant, path, count):
    """`count` works for cold caches, each run once, and the digest of the first run."""
    make, numbers, dtype = kind_of(case)
    if make is None:
        raise Unavailable("no peer for this case")
    if variant not in make.variants:
        raise Unavailable(f"no variant {variant}")
    tensors = tensor_file.load(path)
    works, digest = [], None
    try:
        for i in range(count):
            works.append(make(variant, dtype, copy.deepcopy(tensors) if i else tensors, *numbers))
            if i == 0:
                digest = works[0].digest()
            else:
                works[i].run()
    except Exception as reason:
        # What this version cannot compile is no failure: the other variants are there.
        if variant in COMPILED and type(reason).__module__.startswith("torch."):
            raise Unavailable(first_line(reason)) from reason
        raise
    return works, digest


def autocast(dtype):
    return torch.autocast("cpu", torch.bfloat16) if dtype == "bf16" else contextlib.nullcontext()


def image(x, variant):
    """(B, H, W, C), as ours has it, to PyTorch's (B, C, H, W)."""
    y = x.permute(0, 3, 1, 2).float()
    channels_last = variant not in ("users", "nchw")
    return y.contiguous(memory_format=torch.channels_last) if channels_last else y.contiguous()


def optimizer_of(kind, parameters, variant, **settings):
    """The fastest this PyTorch has for experts; the default for users."""
    if variant != "users":
        for extra in ({"fused": True}, {"foreach": True}):
            try:
                return kind(parameters, **extra, **settings)
            except (TypeError, RuntimeError, ValueError):
                pass
    return kind(parameters, **settings)


def compiled(f, variant="compile", frozen=False):
    return torch_kernels.compiled(f, TORCH_COMPILE[variant], frozen)


def frozen(model, example):
    with torch.no_grad():
        return torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, example)))


def norm(tensors):
    return sum(float(t.detach().double().square().sum()) for t in tensors) ** 0.5


class PlainSgd:
    """p -= lr g for all parameters in one call: less overhead than any torch.optim has."""

    def __init__(self, parameters, lr):
        self.parameters, self.lr = list(parameters), lr

    @torch.no_grad()
    def step(self):
        torch._foreach_add_(self.parameters, [p.grad for p in self.parameters], alpha=-self.lr)

    def zero_grad(self, set_to_none=True):
        for p in self.parameters:
            p.grad = None


def distillation(student, teacher, targets, tau, share):
    hard = F.cross_entropy(student, targets)
    soft = F.kl_div(F.log_softmax(student / tau, 1), F.softmax(teacher / tau, 1), reduction="batchmean")
    return (1 - share) * hard + share * tau * tau * soft


# ------------------------------------------------------------------------------ whole steps


class Training:
    """forward, loss, backward, update on batches that take turns."""

    variants = ("expert", "nchw", "users", "compile", "autotune")

    def __init__(self, variant, dtype, tensors, name, _batch):
        kd = name == "six_arms_kd"
        tuned, channels_last = variant != "users", variant not in ("users", "nchw")
        self.dtype = dtype
        self.model = models.load(tensors)
        self.teacher = models.load(tensors, "teacher.").eval().requires_grad_(False) if kd else None
        if kd and tuned:
            self.teacher = models.fold_batch_norms(self.teacher)
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
            if kd:
                self.teacher = self.teacher.to(memory_format=torch.channels_last)
        # Ours has images of the case's type; users leave them to autocast, which casts them every step.
        kind = torch.bfloat16 if dtype == "bf16" and tuned else torch.float32
        self.batches = [(image(tensors[f"inputs.{i}"], variant).to(kind), tensors[f"targets.{i}"].long()) for i in range(BATCHES)]
        settings = dict(lr=0.1, momentum=0.9, weight_decay=5e-4)
        if kd:
            settings.update(lr=0.05, nesterov=True)
        self.optimizer = optimizer_of(torch.optim.SGD, self.model.parameters(), variant, **settings)
        self.loss_of = compiled(self.loss, variant) if variant in TORCH_COMPILE else self.loss
        self.at = 0

    def loss(self, x, y):
        logits = self.model(x)
        if self.teacher is None:
            return F.cross_entropy(logits, y)
        with torch.no_grad():
            teacher = self.teacher(x)
        return distillation(logits, teacher, y, 4.0, 0.5)

    def batch(self):
        at = self.at
        self.at = (at + 1) % BATCHES
        return self.batches[at]

    def run(self):
        x, y = self.batch()
        with autocast(self.dtype):
            loss = self.loss_of(x, y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.total = loss.detach()

    def digest(self):
        """The loss of the first step, the norm of its update, the loss of the third: so that forward,
        backward, update and what the update remembers are compared."""
        before = [p.detach().clone() for p in self.model.parameters()]
        self.run()
        first, update = self.total.item(), norm(p - b for p, b in zip(self.model.parameters(), before))
        self.run()
        self.run()
        return [first, update, self.total.item()]


class MlpTraining(Training):
    """The published comparison's step: logits (f, -f), plain SGD."""

    variants = ("expert", "users", "compile", "autotune", "manual")
    rate = 0.1

    def __init__(self, variant, _dtype, tensors, _name, batch):
        self.users = variant == "users"
        self.dtype, self.model, self.at = "f32", models.load(tensors), 0
        self.batches = [(tensors[f"inputs.{i}"].clone(), tensors[f"targets.{i}"].long()) for i in range(BATCHES)]
        parameters = self.model.parameters()
        self.optimizer = torch.optim.SGD(parameters, lr=self.rate) if self.users else PlainSgd(parameters, self.rate)
        self.loss_of = compiled(self.loss, variant) if variant in TORCH_COMPILE else self.loss
        if variant == "manual":
            batch, width = self.batches[0][0].shape[0], self.model.fc1.out_features
            self.hidden, self.dhidden = torch.empty(batch, width), torch.empty(batch, width)
            self.model.requires_grad_(False)
            self.run = self.run_manual

    def loss(self, x, y):
        logits = self.model(x)
        if self.users:
            return F.cross_entropy(torch.cat([logits, -logits], 1), y)
        # -log softmax of (f, -f) at y
        return F.softplus((4 * y - 2) * logits[:, 0]).mean()

    def run_manual(self):
        """The update is one with the product that gives the gradient: no gradient is stored."""
        x, y = self.batch()
        fc1, fc2, hidden, dhidden, rate = self.model.fc1, self.model.fc2, self.hidden, self.dhidden, self.rate
        with torch.inference_mode():
            torch.addmm(fc1.bias, x, fc1.weight.t(), out=hidden).relu_()
            sign = (4 * y - 2)[:, None]
            margin = torch.addmm(fc2.bias, hidden, fc2.weight.t()).mul_(sign)
            self.total = F.softplus(margin).mean()
            df = margin.sigmoid_().mul_(sign).mul_(1 / x.shape[0])
            torch.mm(df, fc2.weight, out=dhidden)
            torch.ops.aten.threshold_backward.grad_input(dhidden, hidden, 0, grad_input=dhidden)
            fc2.weight.addmm_(df.t(), hidden, alpha=-rate)
            fc2.bias.sub_(df.sum(0), alpha=rate)
            fc1.weight.addmm_(dhidden.t(), x, alpha=-rate)
            fc1.bias.sub_(dhidden.sum(0), alpha=rate)


class Inference:
    """Logits of a frozen network."""

    variants = ("expert", "nchw", "users", "compile", "autotune", "jit")

    def __init__(self, variant, dtype, tensors, name, _batch):
        self.model = models.load(tensors).eval().requires_grad_(False)
        self.inputs = [image(tensors[f"inputs.{i}"], variant) for i in range(BATCHES)]
        self.context = autocast(dtype)
        if variant != "users":
            self.model = models.fold_batch_norms(self.model)
            if variant != "nchw":
                self.model = self.model.to(memory_format=torch.channels_last)
            if dtype == "bf16":
                self.model, self.inputs = self.model.bfloat16(), [x.bfloat16() for x in self.inputs]
                self.context = contextlib.nullcontext()
        self.guard = torch.no_grad if variant in ("users", *TORCH_COMPILE) else torch.inference_mode
        if variant in TORCH_COMPILE:
            self.model = compiled(self.model, variant, frozen=True)
        if variant == "jit":
            try:
                self.model = frozen(self.model, self.inputs[0])
            except RuntimeError as reason:
                raise Unavailable(f"torch.jit: {first_line(reason)}") from reason
        self.at = 0

    def run(self):
        with self.guard(), self.context:
            self.logits = self.model(self.inputs[self.at])
        self.at = (self.at + 1) % BATCHES

    def digest(self):
        self.run()
        return [norm([self.logits])]


# ------------------------------------------------------------------------------ kernels


class Loss:
    """Total and gradient of (1 - lambda) CE + lambda tau^2 KL, lambda 0.5, mean over rows."""

    variants = ("expert", "users", "compile", "manual")

    def __init__(self, variant, _dtype, tensors, temperature, _rows, _classes):
        self.tau = 3.0 if temperature else 2.0
        self.student, self.teacher = tensors["student"].requires_grad_(True), tensors["teacher"]
        self.targets = tensors["targets"].long()
        self.chain = self.users if variant == "users" else self.expert
        if variant == "compile":
            self.chain = compiled(self.fusible)
        if variant == "manual":
            self.student = self.student.detach()
            self.buffers = [torch.empty_like(self.student) for _ in range(4)]
        self.run = self.run_manual if variant == "manual" else self.run_chain

    def users(self, student, teacher, targets):
        return distillation(student, teacher, targets, self.tau, 0.5)

    def expert(self, student, teacher, targets):
        """Teacher terms without gradient; the KL as cross-entropy less the teacher's entropy, but in bf16
        as a sum in f32: a dot's bf16 result would lose the difference of the two."""
        with torch.no_grad():
            log_p = F.log_softmax(teacher / self.tau, 1)
            p = log_p.exp()
        log_q = F.log_softmax(student / self.tau, 1)
        if student.dtype == torch.bfloat16:
            kd = (p * (log_p - log_q)).sum(dtype=torch.float32)
        else:
            kd = torch.dot(p.view(-1), log_p.view(-1)) - torch.dot(p.view(-1), log_q.view(-1))
        return 0.5 * F.cross_entropy(student, targets) + 0.5 * self.tau**2 * kd / student.shape[0]

    def fusible(self, student, teacher, targets):
        """As sums, which a compiler joins with what they add up: a dot stays a call of its own."""
        log_p = F.log_softmax(teacher.float() / self.tau, 1)
        log_q = F.log_softmax(student.float() / self.tau, 1)
        kd = (log_p.exp() * (log_p - log_q)).sum() / student.shape[0]
        return 0.5 * F.cross_entropy(student.float(), targets) + 0.5 * self.tau**2 * kd

    def run_chain(self):
        self.total = self.chain(self.student, self.teacher, self.targets)
        self.student.grad = None
        self.total.backward()
        self.gradient = self.student.grad

    def run_manual(self):
        log_q, log_p, p, gradient = self.buffers
        rows, tau = self.student.shape[0], self.tau
        with torch.no_grad():
            torch.mul(self.teacher, 1 / tau, out=p)
            torch.log_softmax(p, 1, out=log_p)
            torch.exp(log_p, out=p)
            torch.mul(self.student, 1 / tau, out=gradient)
            torch.log_softmax(gradient, 1, out=log_q)
            log_p.sub_(log_q)
            if p.dtype == torch.bfloat16:  # as in expert()
                kd = log_p.mul_(p).sum(dtype=torch.float32)
            else:
                kd = torch.dot(p.view(-1), log_p.view(-1))
            log_q.exp_().sub_(p).mul_(0.5 * tau / rows)
            log_q1 = torch.log_softmax(self.student, 1, out=p)
            ce = -log_q1.gather(1, self.targets[:, None]).sum()
            torch.exp(log_q1, out=gradient)
            gradient.scatter_add_(1, self.targets[:, None], gradient.new_full((rows, 1), -1))
            gradient.mul_(0.5 / rows).add_(log_q)
            self.total = 0.5 * ce / rows + 0.5 * tau * tau * kd / rows
            self.gradient = gradient

    def digest(self):
        self.run()
        return [self.total.double().item(), norm([self.gradient])]


class Update:
    """One optimizer update of the parameters of ResNet-18: one flat tensor for experts (fused),
    the model's 62 tensors for users."""

    variants = ("expert", "users")

    def __init__(self, variant, dtype, tensors, kind, _n):
        flat = tensors["parameter"]
        if dtype == "bf16":
            raise Unavailable("torch.optim wants gradients of the parameters' type")
        sizes = [flat.numel()]
        if variant == "users" and flat.numel() == 11173962:
            sizes = [p.numel() for p in models.make("resnet18_cifar").parameters()]
        pieces = {name: tensors[name].split(sizes) for name in tensors}
        self.parameters = [torch.nn.Parameter(p.clone()) for p in pieces["parameter"]]
        for p, gradient in zip(self.parameters, pieces["gradient"]):
            p.grad = gradient.clone()
        if kind == "adamw":
            settings = dict(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
            expert_on_cuda = flat.is_cuda and variant != "users"
            if expert_on_cuda:
                settings["capturable"] = True
            self.optimizer = optimizer_of(torch.optim.AdamW, self.parameters, variant, **settings)
            for p, m, v in zip(self.parameters, pieces["m"], pieces["v"]):  # the tenth update
                step = torch.tensor(9.0, device=p.device if expert_on_cuda else "cpu")
                self.optimizer.state[p] = {"step": step, "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
        else:
            settings = dict(lr=0.01, momentum=0.9, weight_decay=0.01)
            self.optimizer = optimizer_of(torch.optim.SGD, self.parameters, variant, **settings)
            for p, m in zip(self.parameters, pieces["m"]):
                self.optimizer.state[p] = {"momentum_buffer": m.clone()}

    def run(self):
        self.optimizer.step()

    def digest(self):
        self.run()
        moment = "exp_avg" if isinstance(self.optimizer, torch.optim.AdamW) else "momentum_buffer"
        return [norm(self.parameters), norm(self.optimizer.state[p][moment] for p in self.parameters)]


CASES = [
    (r"step/(.+)_forward/batch(\d+)", Inference),
    (r"step/(mlp.+)/batch(\d+)", MlpTraining),
    (r"step/(.+)/batch(\d+)", Training),
    (r"distill_loss/forward_kl(_tau3)?/(\d+)x(\d+)", Loss),
    (r"(sgd)/momentum/(\d+)", Update),
    (r"(adamw)/(\d+)", Update),
] + torch_kernels.CASES
