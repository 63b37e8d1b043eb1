#!/usr/bin/env python3
"""Tiny random BERT, DistilBERT and GPT-2 models with what Hugging Face's transformers computes.

    python tests/golden/hugging_face.py FOLDER [--seed N]     # write them
    python tests/golden/hugging_face.py --read FOLDER         # load what FOLDER/saved/NAME holds and compare

tests/golden/hugging_face/ is seed 0, made with transformers 4.36.2 and PyTorch 1.13.1 on a CPU. Each model is a folder as
save_pretrained leaves it, and golden.safetensors beside it:

    ids, starts, segments, rows, labels    a batch, sequences end to end without padding
    logits, embeddings, layer.N            of an evaluation pass, real tokens alone
    loss, grad.NAME                        mean cross-entropy of the rows, and its gradient by each parameter
    kd                                     (bert_masked_lm) losses of 40 steps in which `student` learns from this model

The numbers were computed in double from the f32 weights. Exits with 77 where transformers is not installed.
"""
import argparse
import json
import pathlib
import sys

try:
    import numpy as np
    import torch
    import transformers
    from safetensors.numpy import load_file, save_file
except ImportError as missing:
    print(f"not run: {missing}")
    sys.exit(77)

VOCABULARY, HIDDEN, HEADS, WIDE, POSITIONS, CLASSES, CHOICES = 53, 16, 2, 24, 20, 3, 2
LENGTHS = [7, 1, 12, 5, 20, 3]


def bert(layers=2, **more):
    return transformers.BertConfig(vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=HEADS,
                                   intermediate_size=WIDE, max_position_embeddings=POSITIONS, **more)


def distilbert(**more):
    return transformers.DistilBertConfig(vocab_size=VOCABULARY, dim=HIDDEN, n_layers=2, n_heads=HEADS, hidden_dim=WIDE,
                                         max_position_embeddings=POSITIONS, **more)


def gpt2():
    return transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=HIDDEN, n_layer=2, n_head=HEADS, n_inner=WIDE, n_positions=POSITIONS,
                                   bos_token_id=0, eos_token_id=0)


MODELS = {
    "bert_masked_lm": lambda: transformers.BertForMaskedLM(bert()),
    "bert_classification": lambda: transformers.BertForSequenceClassification(bert(num_labels=CLASSES, hidden_act="relu")),
    "bert_multiple_choice": lambda: transformers.BertForMultipleChoice(bert(hidden_act="gelu_new")),
    "distilbert_masked_lm": lambda: transformers.DistilBertForMaskedLM(distilbert()),
    "distilbert_classification": lambda: transformers.DistilBertForSequenceClassification(distilbert(num_labels=CLASSES)),
    "gpt2_causal_lm": lambda: transformers.GPT2LMHeadModel(gpt2()),
}


def randomize(model, generator):
    """Weights large enough for logits of size 8, norms and biases that are not 1 and 0."""
    for name, parameter in model.named_parameters():
        centre = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
        spread = 0.5 if parameter.dim() > 1 else 0.2
        parameter.data = (centre + spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)).float()
    model.tie_weights()


class Batch:
    """Sequences of these lengths; padded for torch, end to end for the record."""

    def __init__(self, name, lengths, generator):
        def draw(high, n):
            return torch.randint(0, high, (n,), generator=generator)

        self.name, self.lengths, longest = name, lengths, max(lengths)
        self.ids = torch.zeros(len(lengths), longest, dtype=torch.long)
        self.mask, self.types = torch.zeros_like(self.ids), torch.zeros_like(self.ids)
        for i, n in enumerate(lengths):
            # No text holds the padding's id, 0, whose embedding PyTorch gives no gradient.
            self.ids[i, :n], self.mask[i, :n], self.types[i, :n] = 1 + draw(VOCABULARY - 1, n), 1, draw(2, n).sort().values
        self.real = self.mask.bool()
        starts = np.cumsum([0] + lengths)
        flat = torch.arange(sum(lengths))
        if "masked" in name:
            self.rows = flat[(draw(10, len(flat)) < 3) | (flat % 11 == 4)]
            self.labels = draw(VOCABULARY, len(self.rows))
        elif "causal" in name:
            self.rows = torch.tensor([t for b, n in enumerate(lengths) for t in range(starts[b], starts[b + 1] - 1)])
            self.labels = self.ids[self.real][self.rows + 1]
        else:
            self.rows = None
            self.labels = draw(CLASSES if "classification" in name else CHOICES, len(lengths) // (1 if "classification" in name else CHOICES))
        self.starts = starts

    def run(self, model, **more):
        inputs = {"input_ids": self.ids, "attention_mask": self.mask}
        if self.name.startswith("bert"):
            inputs["token_type_ids"] = self.types
        if "choice" in self.name:
            inputs = {k: v.reshape(-1, CHOICES, v.shape[1]) for k, v in inputs.items()}
        return model(**inputs, **more)

    def logits(self, output):
        return output.logits if self.rows is None else output.logits[self.real][self.rows]

    def record(self):
        tensors = {"ids": self.ids[self.real], "starts": torch.tensor(self.starts), "segments": self.types[self.real], "labels": self.labels}
        if self.rows is not None:
            tensors["rows"] = self.rows
        return {k: v.numpy().astype(np.int32) for k, v in tensors.items()}


def cross_entropy(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels)


def golden(name, model, batch):
    model = model.double().eval()
    output = batch.run(model, output_hidden_states=True)
    logits = batch.logits(output)
    loss = cross_entropy(logits, batch.labels)
    loss.backward()
    tensors = batch.record()
    values = {"logits": logits, "loss": loss.reshape(1)}
    for i, hidden in enumerate(output.hidden_states):
        values["embeddings" if i == 0 else f"layer.{i - 1}"] = hidden[batch.real]
    for parameter, value in model.named_parameters():
        values["grad." + parameter] = value.grad
    tensors.update({k: v.detach().numpy().astype(np.float32) for k, v in values.items()})
    return tensors


def train(teacher, student, generator, steps=40):
    """AdamW by hand as PyTorch's, (1 - lambda) CE + lambda tau^2 KL with lambda 0.5, tau 2; no dropout; biases and norms undecayed."""
    teacher, student = teacher.double().eval(), student.double().eval()
    batches = [Batch("bert_masked_lm", [6, 11, 4, 9], generator) for _ in range(4)]
    decayed = [p for p in student.parameters() if p.dim() > 1]
    others = [p for p in student.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=1e-3)
    losses = []
    for step in range(steps):
        batch = batches[step % 4]
        z = batch.logits(batch.run(student))
        with torch.no_grad():
            t = batch.logits(batch.run(teacher))
        kl = torch.nn.functional.kl_div((z / 2).log_softmax(1), (t / 2).log_softmax(1), reduction="batchmean", log_target=True)
        loss = 0.5 * cross_entropy(z, batch.labels) + 0.5 * 4 * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tensors = {"kd": np.array(losses, np.float32)}
    for i, batch in enumerate(batches):
        tensors.update({f"kd.{i}.{k}": v for k, v in batch.record().items()})
    return tensors


def write(folder, seed):
    for i, (name, make) in enumerate(MODELS.items()):
        generator = torch.Generator().manual_seed(1000 * seed + i)
        model = make()
        randomize(model, generator)
        model.save_pretrained(folder / name, safe_serialization=True)
        tensors = golden(name, model, Batch(name, LENGTHS, generator))
        if name == "bert_masked_lm":
            student = transformers.BertForMaskedLM(bert(layers=1))
            randomize(student, generator)
            student.save_pretrained(folder / "student", safe_serialization=True)
            (folder / "student/generation_config.json").unlink(missing_ok=True)
            tensors.update(train(model, student, generator))
        save_file(tensors, folder / name / "golden.safetensors")
        (folder / name / "generation_config.json").unlink(missing_ok=True)


def read(folder):
    """What the library saved anew loads without a missing or an unexpected name, and gives the same logits."""
    for name, make in MODELS.items():
        kind = type(make())
        model, info = kind.from_pretrained(folder / "saved" / name, output_loading_info=True)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not info[what], f"{name}: {what}: {info[what]}"
        tensors = load_file(folder / name / "golden.safetensors")
        batch = Batch(name, LENGTHS, torch.Generator())
        batch.ids[batch.real] = torch.tensor(tensors["ids"]).long()
        batch.types[batch.real] = torch.tensor(tensors["segments"]).long()
        if "rows" in tensors:
            batch.rows = torch.tensor(tensors["rows"]).long()
        away = np.abs(batch.logits(batch.run(model.double().eval())).detach().numpy() - tensors["logits"]).max()
        assert away < 1e-5, f"{name}: logits differ by {away}"
        assert json.loads((folder / "saved" / name / "config.json").read_text())["architectures"] == [kind.__name__]
        print(f"{name}: loaded, logits within {away:.1e}")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--read", action="store_true")
arguments = parser.parse_args()
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
read(arguments.folder) if arguments.read else write(arguments.folder, arguments.seed)
