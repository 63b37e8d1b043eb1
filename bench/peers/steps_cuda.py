"""The cases of step_bench in PyTorch: bf16 autocast over channels_last, images resident on the device, crop
and flip there, clip_grad_norm_, fused SGD; in modes. As users write it: "eager", "compile", "compile, ..." (a mode
of torch.compile). As an expert does: "expert" folds the teacher's batch norms and keeps its weights in bf16;
"expert, graph" replays the whole step, batch and update included, as one CUDA graph; "expert, compile, graph"
compiles forward and backward in it. Inputs are random: that two modes give the same first loss is checked, that
ours does is not. One JSON line a case and mode, the fields that step_bench prints, written as soon as it is known.

usage: steps_cuda.py [--device cuda|cpu] [--json FILE] [--batch N] [--seconds S] [--deadline S] [--modes A;B] [--smoke]
exit:  0 done (modes that the deadline left out or that cannot run here are named), 1 a mode's loss is not the first one's,
       77 no PyTorch or no such device here
"""
import argparse
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import torch
    from torch.nn import functional as F
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
import models  # noqa: E402  bench/peers/models.py: the networks of nn/models

# The best first: a deadline leaves the last ones out.
MODES = ["eager", "expert", "expert, graph", "expert, compile, graph", "compile", "compile, max-autotune-no-cudagraphs",
         "compile, reduce-overhead"]
SMOKE_MODES = ["eager", "expert"]


class CannotRun(Exception):
    pass


def crop_flip(images, index, generator):
    """(B, 3, 32, 32) of u8 from the padded set (N, 3, 40, 40): a place and a flip for every image."""
    n, device = index.numel(), images.device
    dy, dx = (torch.randint(0, 9, (n, 1), device=device, generator=generator) for _ in range(2))
    flip = torch.randint(0, 2, (n, 1), device=device, generator=generator, dtype=torch.bool)
    at = torch.arange(32, device=device)[None]
    rows, columns = dy + at, dx + torch.where(flip, 31 - at, at)
    return images[index[:, None, None, None], torch.arange(3, device=device)[None, :, None, None],
                  rows[:, None, :, None], columns[:, None, None, :]]


class Training:
    def __init__(self, teacher, student, args, expert=False):
        device = args.device
        torch.manual_seed(1)
        self.args = args
        self.student = models.make(student).to(device, memory_format=torch.channels_last)
        self.teacher = models.make(teacher).to(device, memory_format=torch.channels_last).eval() if teacher else None
        if self.teacher:
            self.teacher.requires_grad_(False)
            if expert:
                folded = models.fold_batch_norms(self.teacher)
                self.teacher = folded.to(torch.bfloat16, memory_format=torch.channels_last)
        fused = device == "cuda"
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, fused=fused)
        count = max(6 * args.batch, 12 if args.smoke else 50000)
        self.generator = torch.Generator(device).manual_seed(2)
        stored = torch.randint(0, 256, (count, 3, 32, 32), device=device, dtype=torch.uint8, generator=self.generator)
        self.images = F.pad(stored, (4, 4, 4, 4))
        self.labels = torch.arange(count, device=device) % 10
        self.mean = torch.tensor([0.4914, 0.4822, 0.4465], device=device).view(1, 3, 1, 1)
        self.std = torch.tensor([0.2470, 0.2435, 0.2616], device=device).view(1, 3, 1, 1)
        # On the device, so that a captured step moves on too.
        self.index = torch.arange(args.batch, device=device)
        self.forward_loss = self.plain_forward_loss
        self.run = self.step

    def batch(self):
        index = self.index.clone()
        self.index.add_(self.args.batch).remainder_(self.images.shape[0])
        pixels = crop_flip(self.images, index, self.generator)
        x = ((pixels.float() / 255 - self.mean) / self.std).to(memory_format=torch.channels_last)
        return x, self.labels[index]

    def plain_forward_loss(self, x, y):
        with torch.autocast(self.args.device, torch.bfloat16):
            logits = self.student(x)
            if self.teacher:
                with torch.no_grad():
                    told = self.teacher(x)
        loss = F.cross_entropy(logits.float(), y)
        if self.teacher:
            tau = 4.0
            soft = F.kl_div(F.log_softmax(logits.float() / tau, 1), F.softmax(told.float() / tau, 1), reduction="batchmean")
            loss = 0.5 * loss + 0.5 * tau * tau * soft
        return loss

    def step(self):
        x, y = self.batch()
        loss = self.forward_loss(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = loss.detach()

    def compile(self, mode):
        self.forward_loss = torch.compile(self.plain_forward_loss, mode=mode)

    def capture(self):
        """From here on run() replays one step as a CUDA graph."""
        if self.args.device != "cuda":
            raise CannotRun("CUDA graphs need a CUDA device")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is made on first use is not captured
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph):
            self.step()
        self.run = graph.replay


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def time_of(training, steps, device):
    """Milliseconds a step: `steps` of them between two waits for the device."""
    wait(device)
    begin = time.perf_counter()
    for _ in range(steps):
        training.run()
    wait(device)
    return 1e3 * (time.perf_counter() - begin) / steps


def measure(case, teacher, student, mode, args):
    training = Training(teacher, student, args, expert=mode.startswith("expert"))
    if mode == "expert, compile, graph":
        training.compile("max-autotune-no-cudagraphs")
    elif mode.startswith("compile"):
        training.compile(None if mode == "compile" else mode.split(", ")[1])
    begin = time.perf_counter()
    training.step()
    loss_of_first = float(training.loss)
    if mode.endswith("graph"):
        training.capture()
    for _ in range(0 if args.smoke else 4):
        training.run()
    wait(args.device)
    first = time.perf_counter() - begin
    guess = time_of(training, 1 if args.smoke else 3, args.device)
    each = 1 if args.smoke else max(1, int(1e3 * args.seconds / 5 / guess))
    samples = sorted(time_of(training, each, args.device) for _ in range(2 if args.smoke else 5))
    median = statistics.median(samples)
    return {"case": case, "who": "pytorch " + torch.__version__, "mode": mode, "batch": args.batch, "dtype": "bf16",
            "ms": median, "images_per_s": 1e3 * args.batch / median, "ms_least": samples[0], "ms_most": samples[-1],
            "first_steps_s": first, "loss_of_first": loss_of_first,
            "peak_bytes": torch.cuda.max_memory_allocated() if args.device == "cuda" else 0}


class Clock:
    """What a mode of a case may be expected to take, from what was seen: compiling a large network
    takes minutes, and a process that is stopped in the middle of it has used them up for nothing."""

    UNSEEN = 5  # how much longer than eager the first compiled mode is taken to be: a guess

    def __init__(self, deadline):
        self.begin, self.deadline, self.took = time.perf_counter(), deadline, {}

    def expected(self, case, mode):
        kind = "compile" in mode
        if (case, kind) in self.took:
            return self.took[case, kind]
        eager = self.took.get((case, False), 0)
        if kind:  # another case's compile, scaled by what the two take eagerly
            scaled = [seconds * max(1, eager / self.took[other, False]) for (other, compiled), seconds in self.took.items()
                      if compiled and self.took.get((other, False))]
            return max(scaled, default=self.UNSEEN * eager)
        return max(self.took.values(), default=0)

    def allows(self, case, mode):
        return time.perf_counter() - self.begin + self.expected(case, mode) <= self.deadline

    def note(self, case, mode, seconds):
        key = case, "compile" in mode
        self.took[key] = max(seconds, self.took.get(key, 0))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--json")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--deadline", type=float, default=150, help="seconds: no mode is begun that is not expected to end by then")
    parser.add_argument("--modes", help="of: " + "; ".join(MODES) + " (the default; with --smoke: " + "; ".join(SMOKE_MODES) + ")")
    parser.add_argument("--smoke", action="store_true", help="toy sizes")
    args = parser.parse_args()
    modes = [mode.strip() for mode in args.modes.split(";")] if args.modes else SMOKE_MODES if args.smoke else MODES
    if set(modes) - set(MODES):
        parser.error(f"no such mode: {', '.join(set(modes) - set(MODES))}")
    if args.device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch sees no CUDA device here")
        return 77
    cases = [("resnet18_train", None, "resnet18_cifar"), ("resnet152_to_resnet18_kd", "resnet152_cifar", "resnet18_cifar")]
    if args.smoke:
        args.batch = 2
        cases = [("resnet8_train", None, "resnet8"), ("resnet8_kd", "resnet8", "resnet8")]
    torch.backends.cudnn.benchmark = True  # as ours chooses by measuring
    clock = Clock(args.deadline)
    losses, status = {}, 0
    file = open(args.json, "w") if args.json else None
    # The modes in turn, so that a deadline leaves both cases with the same ones.
    for mode in modes:
        for case, teacher, student in cases:
            if not clock.allows(case, mode):
                print(f"left out by the deadline: {case}, {mode} (about {clock.expected(case, mode):.0f} s)", flush=True)
                continue
            begin = time.perf_counter()
            torch.compiler.reset()
            if args.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                result = measure(case, teacher, student, mode, args)
            except Exception as reason:  # PyTorch raises several kinds; the next mode may do
                print(f"skipped: {case}, {mode}: {type(reason).__name__}: {(str(reason).splitlines() or [''])[0]}", flush=True)
                if mode == "eager":
                    status = 1
                continue
            clock.note(case, mode, time.perf_counter() - begin)
            line = json.dumps(result)
            print(line, flush=True)
            if file:  # line by line: what a run that is cut off leaves
                print(line, file=file, flush=True)
            loss = losses.setdefault(case, result["loss_of_first"])
            if not abs(result["loss_of_first"] - loss) <= 0.02 * abs(loss):
                print(f"COMPUTED SOMETHING ELSE: {case}, {mode}: {result['loss_of_first']}, {modes[0]} {loss}")
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
