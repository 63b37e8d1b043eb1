"""The cases of distill_bench in PyTorch. A case is a class whose instance is one work: run(), and
digest() of the first run. Variants:

  expert   as an expert writes it: channels_last, fused or foreach optimizers, folded batch norms,
           no gradients where none are needed
  nchw     expert, but with contiguous NCHW images
  users    as most code in the wild writes it
  compile  expert under torch.compile
  jit      (inference) expert, traced, frozen, optimize_for_inference
  manual   (loss) no autograd: the gradient by hand, into buffers that are kept
"""
import contextlib
import copy
import re

import torch
from torch.nn import functional as F

import models
import tensor_file
import torch_kernels
from torch_kernels import Unavailable, compiled


def load_everything():
    """One training step of a toy, so that modules, libraries and threads are there."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(288, 4))
    optimizer = optimizer_of(torch.optim.SGD, model.parameters(), "expert", lr=0.1, momentum=0.9)
    for _ in range(2):
        F.cross_entropy(model(torch.ones(4, 3, 8, 8)), torch.zeros(4, dtype=torch.long)).backward()
        optimizer.step()
        optimizer.zero_grad()


def prepare(case, variant, path, count):
    """`count` works for cold caches, each run once, and the digest of the first run."""
    name, dtype = case.rsplit("/", 1)
    for pattern, make in CASES:
        match = re.fullmatch(pattern, name)
        if match:
            break
    else:
        raise Unavailable("no peer for this case")
    tensors = tensor_file.load(path)
    works, digest = [], None
    for i in range(count):
        work = make(variant, dtype, copy.deepcopy(tensors) if i else tensors, *match.groups())
        work.run()
        if i == 0:
            digest = work.digest()
        works.append(work)
    return works, digest


def check_variant(variant, *known):
    if variant not in known:
        raise Unavailable(f"no variant {variant}")


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


class PlainSgd:
    """p -= lr g for all parameters in one call: less overhead than any torch.optim has."""

    def __init__(self, parameters, lr):
        self.parameters, self.lr = list(parameters), lr

    @torch.no_grad()
    def step(self):
        torch._foreach_add_(self.parameters, [p.grad for p in self.parameters], alpha=-self.lr)

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None


def distillation(student, teacher, targets, tau, share):
    hard = F.cross_entropy(student, targets)
    soft = F.kl_div(F.log_softmax(student / tau, 1), F.softmax(teacher / tau, 1), reduction="batchmean")
    return (1 - share) * hard + share * tau * tau * soft


# ------------------------------------------------------------------------------ whole steps


class Training:
    """forward, loss, backward, update on batches that take turns."""

    def __init__(self, variant, dtype, tensors, name, _batch):
        check_variant(variant, "expert", "nchw", "users", "compile")
        kd = name == "six_arms_kd"
        self.dtype, self.mlp, self.variant = dtype, name.startswith("mlp"), variant
        self.model = models.load(tensors)
        self.teacher = models.load(tensors, "teacher.").eval() if kd else None
        inputs = [tensors[f"inputs.{i}"] for i in range(4)]
        if not self.mlp:
            inputs = [image(x, variant) for x in inputs]
            if variant not in ("users", "nchw"):
                self.model = self.model.to(memory_format=torch.channels_last)
                if kd:
                    self.teacher = self.teacher.to(memory_format=torch.channels_last)
        self.batches = [(x.clone(), tensors[f"targets.{i}"].long()) for i, x in enumerate(inputs)]
        settings = dict(lr=0.1) if self.mlp else dict(lr=0.1, momentum=0.9, weight_decay=5e-4)
        if kd:
            settings = dict(lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
        self.optimizer = optimizer_of(torch.optim.SGD, self.model.parameters(), variant, **settings)
        if self.mlp and variant != "users":
            self.optimizer = PlainSgd(self.model.parameters(), settings["lr"])
        self.loss_of = compiled(self.loss) if variant == "compile" else self.loss
        self.at = 0
        self.first = None

    def loss(self, x, y):
        logits = self.model(x)
        if self.mlp:
            if self.variant == "users":
                return F.cross_entropy(torch.cat([logits, -logits], 1), y)
            # -log softmax of (f, -f) at y
            return F.softplus((4 * y - 2) * logits[:, 0]).mean()
        if self.teacher is None:
            return F.cross_entropy(logits, y)
        with torch.no_grad():
            teacher = self.teacher(x)
        return distillation(logits, teacher, y, 4.0, 0.5)

    def run(self):
        x, y = self.batches[self.at]
        self.at = (self.at + 1) % len(self.batches)
        with autocast(self.dtype):
            loss = self.loss_of(x, y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.first is None:
            self.first = loss.item()

    def digest(self):
        return [self.first]


class Inference:
    """Logits of a frozen network."""

    def __init__(self, variant, dtype, tensors, name, _batch):
        check_variant(variant, "expert", "nchw", "users", "compile", "jit")
        self.model = models.load(tensors).eval()
        self.inputs = [image(tensors[f"inputs.{i}"], variant) for i in range(4)]
        self.context = autocast(dtype)
        if variant != "users":
            self.model = models.fold_batch_norms(self.model)
            if variant != "nchw":
                self.model = self.model.to(memory_format=torch.channels_last)
            if dtype == "bf16":
                self.model, self.inputs = self.model.bfloat16(), [x.bfloat16() for x in self.inputs]
                self.context = contextlib.nullcontext()
        self.guard = torch.no_grad if variant == "users" else torch.inference_mode
        if variant == "compile":
            self.model = compiled(self.model)
        if variant == "jit":
            try:
                with torch.no_grad():
                    frozen = torch.jit.freeze(torch.jit.trace(self.model, self.inputs[0]))
                    self.model = torch.jit.optimize_for_inference(frozen)
            except Exception as reason:
                raise Unavailable(f"torch.jit: {reason}")
        self.at = 0
        self.first = None

    def run(self):
        with self.guard(), self.context:
            logits = self.model(self.inputs[self.at])
        self.at = (self.at + 1) % len(self.inputs)
        if self.first is None:
            self.first = logits.double().norm().item()

    def digest(self):
        return [self.first]


# ------------------------------------------------------------------------------ kernels


class Loss:
    """Total and gradient of (1 - lambda) CE + lambda tau^2 KL, lambda 0.5, mean over rows."""

    def __init__(self, variant, _dtype, tensors, temperature, _rows, _classes):
        check_variant(variant, "expert", "users", "compile", "manual")
        self.tau = 3.0 if temperature else 2.0
        self.student, self.teacher = tensors["student"].requires_grad_(True), tensors["teacher"]
        self.targets = tensors["targets"].long()
        chain = self.users if variant == "users" else self.expert
        self.chain = compiled(chain) if variant == "compile" else chain
        if variant == "manual":
            self.student = self.student.detach()
            self.buffers = [torch.empty_like(self.student) for _ in range(4)]
        self.run = self.run_manual if variant == "manual" else self.run_chain

    def users(self, student, teacher, targets):
        return distillation(student, teacher, targets, self.tau, 0.5)

    def expert(self, student, teacher, targets):
        """Teacher terms without gradient; the KL as cross-entropy less the teacher's entropy."""
        with torch.no_grad():
            log_p = F.log_softmax(teacher / self.tau, 1)
            p = log_p.exp()
            entropy = -torch.dot(p.view(-1).float(), log_p.view(-1).float())
        log_q = F.log_softmax(student / self.tau, 1)
        cross = -torch.dot(p.view(-1), log_q.view(-1))
        rows = student.shape[0]
        return 0.5 * F.cross_entropy(student, targets) + 0.5 * self.tau**2 * (cross - entropy) / rows

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
        return [self.total.double().item(), self.gradient.double().norm().item()]


class Update:
    """One optimizer update of the parameters of ResNet-18: one flat tensor for experts (fused),
    the model's 62 tensors for users."""

    def __init__(self, variant, dtype, tensors, kind, _n):
        check_variant(variant, "expert", "users")
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
        self.first = None

    def run(self):
        self.optimizer.step()
        if self.first is None:
            moment = "exp_avg" if isinstance(self.optimizer, torch.optim.AdamW) else "momentum_buffer"
            norm = lambda list_of: sum(float(t.detach().double().square().sum()) for t in list_of) ** 0.5
            self.first = [norm(self.parameters), norm(self.optimizer.state[p][moment] for p in self.parameters)]

    def digest(self):
        return self.first


CASES = [
    (r"step/(.+)_forward/batch(\d+)", Inference),
    (r"step/(.+)/batch(\d+)", Training),
    (r"distill_loss/forward_kl(_tau3)?/(\d+)x(\d+)", Loss),
    (r"(sgd)/momentum/(\d+)", Update),
    (r"(adamw)/(\d+)", Update),
] + torch_kernels.CASES
