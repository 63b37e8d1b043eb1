#include "tools/kdtrain/error_codes.h"

#include <algorithm>
#include <cctype>
#include <cstring>

namespace retort::tools {
namespace {

// By status, and there by number; the row without a text is the status's last.
constexpr ErrorRow kRows[] = {
    {"RT0199", 1, "", "A fault of kdtrain itself.",
     "Please report it, with the line and the command."},

    {"RT0201", 2, "unknown key", "A recipe or the command line has a key that there is not.",
     "Take the key that is suggested; `kdtrain schema` lists all."},
    {"RT0202", 2, "the recipe changed",
     "--resume met a recipe whose results would be others than those of the run folder.",
     "Take back the changes that are named, or start a run of its own with --out. With "
     "--retry-failed, arms that failed may have another rate (arm.NAME.train.lr=...)."},
    {"RT0203", 2, "is not empty: --resume", "The run folder holds an earlier run.",
     "--resume goes on with it; --out DIR names another folder."},
    {"RT0204", 2, "is in use by another kdtrain", "Another process works in the run folder.",
     "Wait for it, or take another --out."},
    {"RT0205", 2, "cannot resume", "--resume met a folder that no run made, or none at all.",
     "Check --out; without --resume the run begins."},
    {"RT0206", 2, "no recipe '", "Neither a file nor an embedded recipe has that name.",
     "`kdtrain ls` lists the embedded ones."},
    {"RT0207", 2, "there is no command", "The first word is no command.",
     "`kdtrain --help` lists them."},
    {"RT0208", 2, "cannot differ between",
     "A key stands in an [[arm]], [[model]] or [[task]] that all "
     "of them share.",
     "Set it outside the block."},
    {"RT0209", 2, "one value of each channel",
     "Batch norm would take a mean and a variance over a single value.",
     "A larger batch or micro-batch, fewer slices, or a batch that leaves no single sample at the "
     "end of an epoch."},
    {"RT0210", 2, "is larger than its", "A batch has more samples than the training data.",
     "A smaller batch, or more data."},
    {"RT0211", 2, "the recipe wants",
     "The recipe names libraries that were not given with --load, or others than were.",
     "Give the same libraries in the same order."},
    {"RT0212", 2, "there is no section or key",
     "`kdtrain schema` was asked for a key that there is not.",
     "`kdtrain schema` without a word lists all."},
    {"RT0213", 2, "was taken at step",
     "An arm learns from a moment of its teacher's training that was never kept.",
     "Steps within the teacher's training; an arm that is added on resume cannot have moments of a "
     "teacher that is trained already."},
    {"RT0214", 2, "exceeds the accuracy",
     "An arm learns from the first moment of its teacher above an accuracy that it never reached.",
     "Lower distill.progressive.accuracies, or a smaller teacher.train.checkpoint_steps."},
    {"RT0215", 2, "is there twice", "A list that names jobs or files has an entry twice.",
     "Each seed, arm and teacher once."},
    {"RT0216", 2, "does not read it",
     "A key is set that the model or the data at hand does not read.",
     "Remove it, or take the arch or format that reads it (`kdtrain schema`)."},
    {"RT0217", 2, ", data ", "A model and the data do not fit each other.",
     "Take an arch that reads what the data gives; the message lists them."},
    {"RT0218", 2, "expected", "A value is not of the kind, or not in the range, that its key has.",
     "The message says what was expected; `kdtrain schema KEY` says what it means."},
    {"RT0220", 2, "works with one rank so far",
     "A command that writes was started as several ranks, which would race for the same files.",
     "Start it without mpirun or srun. For copies that are meant, each with its own --out, take "
     "the "
     "variable that the message names out: env -u PMI_SIZE kdtrain ..."},
    {"RT0221", 2, " ranks, but ", "The launcher belongs to another MPI than the plug-in.",
     "Use the launcher that the message names, or set RETORT_MPI_LIBRARY to the plug-in of the MPI "
     "that launches."},
    {"RT0222", 2, " instead of ",
     "Ranks that should do the same thing were given different things.",
     "The message names the rank, its host and both values: give all ranks the same."},
    {"RT0223", 2, "ranks train on the CPU so far", "Several ranks were to train on GPUs.",
     "--device cpu, or one rank."},
    {"RT0224", 2, " goes with ",
     "Slices of a batch are dealt to ranks in equal numbers, each a power of two.",
     "Take one of the numbers of ranks that the message names, or other train.slices for a new "
     "run: "
     "8 go with 1, 2, 4 and 8 ranks."},
    {"RT0225", 2, " launched already: leave it out",
     "`kdtrain run --ranks` was itself started as another number of ranks.",
     "Either mpirun or srun, or --ranks; with both, the same number."},
    {"RT0299", 2, "", "The command line or the recipe asks for something that cannot be.",
     "The message says what; `kdtrain --help` and `kdtrain schema` say what there is."},

    {"RT0301", 3, "every checkpoint is damaged", "All checkpoints of a job are damaged.",
     "Bring the folder back from a copy. To train the job anew, remove the folder that is named."},
    {"RT0302", 3, "has another content than was written",
     "A file that the run wrote and now reads back was changed or damaged.",
     "Bring it back from a copy, or do what the message says to make it again."},
    {"RT0303", 3, "is not in files.json",
     "The run folder holds a file that the run did not write whole.",
     "Remove the job's folder to train it again."},
    {"RT0304", 3, "the data is not what", "--resume met other samples than the run began with.",
     "Give the data of the run, or start a run of its own with --out."},
    {"RT0305", 3, "the teacher's weights are not those",
     "--resume met another teacher than the run began with.",
     "Give the weights of the run, or start a run of its own with --out."},
    {"RT0306", 3, "is not what the run began with",
     "A curriculum comes out otherwise than in the sittings before.",
     "Give the file or the weights that it was made from."},
    {"RT0307", 3, "begin with '", "The names of all weights have a prefix in front.",
     "Save them without it; the message has the line of Python."},
    {"RT0308", 3, "the weights do not fit the model",
     "A weights file has other names or shapes than the model.",
     "Check arch and its options (width, hidden, stem, classes); the message lists the names."},
    {"RT0309", 3, "has a NaN or an infinity", "A weights file holds a value that is no number.",
     "Take another file: these weights are broken."},
    {"RT0310", 3, "chance", "A teacher knows no more than guessing does.",
     "Check its file, its normalisation and the order of the classes; teacher.allow_untrained = "
     "true "
     "accepts it, for a control."},
    {"RT0311", 3, "weights are zero", "A teacher's weights are all zero.",
     "Take the file of a trained teacher."},
    {"RT0312", 3, "when unpacked", "A packed file holds more than its format has room for.",
     "It is not the file that it claims to be."},
    {"RT0313", 3, "safetensors file?", "A file of weights does not begin like one.",
     "Convert it: only .safetensors is read."},
    {"RT0314", 3, "--load", "A library is broken, foreign, or of other headers than this kdtrain.",
     "Build it against this installation, with its compiler."},
    {"RT0315", 3, "is of another version",
     "A run folder or a checkpoint was made by another version.",
     "Go on with that version, or start anew with --out."},
    {"RT0316", 3, "the list of files is damaged",
     "files.json, which says what a run folder's files should be, cannot be read.",
     "Bring it back from a copy, or remove it: what it names is made again, or the message then "
     "says "
     "what cannot be."},
    {"RT0317", 3, "; to train it again, remove",
     "A file that a job wrote, and others read, is missing or was cut short.",
     "Bring it back from a copy, or remove the folder that the message names."},
    {"RT0399", 3, "", "A file is not what it should be.",
     "The message names the file, the place in it and what was expected."},

    {"RT0401", 4, "the disk is too full", "A checkpoint does not fit on the disk.",
     "Make room, then go on with --resume; a smaller train.checkpoint_keep needs less."},
    {"RT0402", 4, "there is no folder", "data.root is no folder.",
     "Set data.root=DIR, or RETORT_DATA in the environment."},
    {"RT0403", 4, "[data] there is no file", "A data file is missing.",
     "Check data.root and the list of files; `kdtrain doctor` says what RETORT_DATA holds."},
    {"RT0404", 4, "[weights] there is no file", "A weights file is missing.",
     "The message lists the places that were tried."},
    {"RT0405", 4, "expected a regular file, got",
     "A pipe or a device stands where a regular file is read.",
     "Write it to a file first; only recipes may come through a pipe."},
    {"RT0406", 4, "is no run folder", "`compare` met a folder that holds no run.",
     "Give run folders, such as runs/NAME."},
    {"RT0407", 4, "no such file", "A file is missing.",
     "The message names the place that was looked at."},
    {"RT0499", 4, "", "The operating system refused to read or write.",
     "The message names the file and the reason; checkpoints stand, and --resume goes on."},

    {"RT0501", 5, "", "Memory ran out.",
     "A smaller train.batch, train.micro_batch or train.evaluate_batch; train.precision = "
     "\"bf16\"; "
     "train.jobs = 1; `kdtrain plan` says beforehand what a run takes."},

    {"RT0601", 6, "jobs failed",
     "The loss of some jobs became NaN or infinite; the others are done.",
     "A smaller lr, a clip_norm or a warmup, then --resume --retry-failed."},
    {"RT0699", 6, "", "A number is NaN or infinite where there must be none.",
     "The message names it; a smaller lr or a clip_norm may help."},

    {"RT0701", 7, "has other weights after step",
     "A rank does not hold what the others hold: its memory or its processor is not sound.",
     "Leave out the host that is named; the last checkpoint stands, and --resume goes on."},
    {"RT0799", 7, "", "Another rank is gone, stands still, or does something else.",
     "The message names it, its host and process: look at what it said last."},

    {"RT0801", 8, "no CUDA", "The GPU was asked for, and there is none that can be used.",
     "`kdtrain doctor` says why; --device cpu does without."},
    {"RT0802", 8, " ranks, but there is ",
     "Several ranks were launched, and the plug-in for MPI is missing or broken.",
     "Build Retort where that MPI is (RETORT_MPI=ON), or set RETORT_MPI_LIBRARY to its plug-in."},
    {"RT0803", 8, "--ranks: there is no mpirun",
     "`kdtrain run --ranks` found no launcher of an MPI that Retort was built with.",
     "Install that MPI's mpirun, name it by RETORT_MPIRUN=FILE, or start the ranks by srun."},
    {"RT0899", 8, "", "The device or its driver refused.",
     "`kdtrain doctor` says what there is; --device cpu does without."},
};

}  // namespace

std::span<const ErrorRow> error_rows() { return kRows; }

const ErrorRow& error_row(int status, std::string_view message) noexcept {
  for (const ErrorRow& row : kRows)
    if (row.status == status && message.find(row.text) != std::string_view::npos) return row;
  return kRows[0];
}

std::string error_label(ErrorCode code, std::string_view message) {
  return std::string("error[") + error_row(code, message).code + "]: ";
}

std::string errors_page() {
  std::string out =
      "# Errors of kdtrain\n\n"
      "`kdtrain explain RT0301` says the same at the terminal. The two digits behind RT are the "
      "exit\n"
      "status. Made from `error_codes.cpp`; a test compares.\n\n"
      "| code | what happened | what to do |\n|---|---|---|\n";
  for (const ErrorRow& row : kRows)
    out += std::string("| ") + row.code + " | " + row.what + " | " + row.cure + " |\n";
  return out;
}

std::string explain_error(std::string_view code) {
  for (const ErrorRow& row : kRows)
    if (std::equal(code.begin(), code.end(), row.code, row.code + std::strlen(row.code),
                   [](char a, char b) { return std::toupper(static_cast<unsigned char>(a)) == b; }))
      return std::string(row.code) + " (exit status " + std::to_string(row.status) +
             "): " + row.what + "\n" + row.cure + "\n";
  return "";
}

}  // namespace retort::tools
