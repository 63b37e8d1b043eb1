# What matrix.sh and faults.sh share: the launchers, small recipes with their data, and what of a run folder must be
# equal. Sourced with $build and $work set.
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_rmaps_base_oversubscribe=1
kdtrain=$build/bin/kdtrain
launchers=()
for family in openmpi mpich; do
  [ -e "$build/lib/libretort_mpi_$family.so" ] && command -v "mpirun.$family" >/dev/null && launchers+=("mpirun.$family")
done
[ ${#launchers[@]} -gt 0 ] || { echo "no MPI here" >&2; exit 77; }

make_data() {
  python3 - "$work/data" <<'PYTHON'
import os, random, sys
folder, draw = sys.argv[1], random.Random(1)
os.makedirs(folder, exist_ok=True)
for name, count in (("a.bin", 35), ("b.bin", 35), ("t.bin", 10)):  # a short last batch
    with open(f"{folder}/{name}", "wb") as file:
        for i in range(count):
            file.write(bytes([i % 10]) + draw.randbytes(3072))
with open(f"{folder}/vocab.txt", "w") as file:
    file.write("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n.\n" + "".join(f"w{w}\n" for w in range(30)))
for name, count in (("train.txt", 26), ("test.txt", 8)):
    with open(f"{folder}/{name}", "w") as file:
        for i in range(count):
            file.write(" ".join(f"w{(i + 2 * w) % 30}" for w in range(3 + i * 5 % 7)) + " .\n")
for name, rows in (("train", 48), ("test", 30)):
    with open(f"{folder}/{name}.csv", "w") as file:
        file.write("a,b,label\n")
        for i in range(rows):
            label = i * 7 % 3
            file.write(f"{label + 0.1 * (i % 11)},{0.2 * (i % 5)},{label}\n")
PYTHON
}

make_recipes() {
  cat >"$work/mlp.toml" <<TOML
name = "mlp"
seeds = [1]
data = { format = "parity", bits = 12, support = 3, test_size = 50 }
[teacher]
arch = "mlp"
hidden = [32]
allow_untrained = true
train = { steps = 40, batch = 5, lr = 0.1, slices = 8 }
[student]
arch = "mlp"
hidden = [16]
[train]
steps = 40
batch = 18
lr = 0.05
clip_norm = 0.5
checkpoint_steps = 20
checkpoint_keep = 100
log_steps = 10
probe = false
slices = 8
[[arm]]
name = "sgd"
train.momentum = 0.9
[[arm]]
name = "adamw"
train.optimizer = "adamw"
train.micro_batch = 1
[[arm]]
name = "head"
distill.method = "extraction"
distill.extraction.variant = "head"
distill.extraction.width = 4
distill.extraction.window = 5
distill.extraction.steps = 20
TOML
  cat >"$work/resnet.toml" <<TOML
name = "resnet"
seeds = [1]
data = { format = "cifar10", root = "$work/data", train_files = ["a.bin"], test_files = ["t.bin"] }
[teacher]
arch = "resnet8"
allow_untrained = true
train = { files = ["b.bin"], steps = 1, batch = 16, lr = 0.02, slices = 8 }
[student]
arch = "resnet8"
[train]
steps = 4
batch = 16
lr = 0.05
clip_norm = 0.5
checkpoint_steps = 2
checkpoint_keep = 100
log_steps = 2
slices = 8
[[arm]]
name = "sgd"
train.momentum = 0.9
[[arm]]
name = "adamw"
train.optimizer = "adamw"
train.lr = 0.01
train.order = "curriculum"
distill.reliance = { mode = "literal", s = "first_batch", per = "sample" }
TOML
  cat >"$work/bert.toml" <<TOML
name = "bert"
seeds = [1]
[data]
format = "text"
root = "$work/data"
vocab = "vocab.txt"
case = "cased"
train_files = ["train.txt"]
test_files = ["test.txt"]
[teacher]
arch = "bert"
layers = 2
hidden_size = 16
heads = 2
intermediate = 32
allow_untrained = true
train = { epochs = 1, batch = 8, lr = 1e-3, optimizer = "adamw", slices = 8 }
[student]
arch = "bert"
layers = 1
hidden_size = 8
heads = 1
intermediate = 16
[train]
epochs = 2
batch = 8
lr = 1e-3
optimizer = "adamw"
log_steps = 1
slices = 8
[[arm]]
name = "triple"
distill.loss = "distilbert_triple"
[[arm]]
name = "rescored"
train.order = "curriculum"
curriculum.scorer = "student"
curriculum.rescore_epochs = 1
TOML
  cat >"$work/table.toml" <<TOML
name = "table"
seeds = [1, 2]
data = { format = "table", root = "$work/data", train_files = ["train.csv"], test_files = ["test.csv"] }
[teacher]
arch = "mlp"
hidden = [16]
allow_untrained = true
train = { steps = 60, batch = 16, lr = 0.2, slices = 8 }
[student]
arch = "mlp"
hidden = [8]
[train]
epochs = 3
batch = 16
lr = 0.1
log_steps = 1
slices = 8
[[arm]]
name = "a"
[[arm]]
name = "b"
train.optimizer = "adamw"
train.lr = 0.01
TOML
  # Long enough to be met in the middle.
  sed 's/^name = "mlp"/name = "long"/; s/^checkpoint_steps = 20/checkpoint_steps = 300/; s/^steps = 40/steps = 1500/' \
    "$work/mlp.toml" >"$work/long.toml"
}

# Weights, checkpoints, curricula and the log of a run folder; times, memory and what only ranks tell aside. At the end:
# without checkpoints, of which a run that was stopped has one more.
content() { content_of "$1" '^$'; }
content_at_end() { content_of "$1" '/ckpt-'; }
content_of() {
  (cd "$1" && find . -name '*.safetensors' -o -name '*.csv' | grep -v "$2" | sort | xargs sha256sum) | sha256sum
  sed -E 's/"(samples_per_s|wall_s|share_[a-z]+|memory_[a-z_]+|ranks)":[^,}]*//g; s/,+/,/g' "$1/metrics.jsonl" | sha256sum
}

# process_of RANK OUT: the process of a rank of the run in that folder, by what the launcher left in its environment.
process_of() {
  local pid
  for pid in $(pgrep -x kdtrain); do
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$2" || continue
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxE "(OMPI_COMM_WORLD_RANK|PMI_RANK)=$1" && { echo "$pid"; return; }
  done
}
