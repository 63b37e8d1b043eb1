// The keys of the program itself, and how they and the rows of the registries make one table.
//
// Note [What keys decide] Effects are marked here and read by whoever asks; nobody keeps a list:
//   kChangesResult   on by itself. Off for what is about files, messages, memory and the machine.
//   kChangesCost     cost_signature() compares values.
//   kCostsOnceOn     cost_signature() asks whether the value is the neutral one.
//   kChangesOrder    order_signature(), curriculum_name().
#include <set>

#include "kernels/common/check.h"
#include "nn/optim/slice_sum.h"
#include "tools/kdtrain/schema_parts.h"

namespace retort::tools {
namespace {

using namespace nn;

constexpr unsigned kResult = kChangesResult, kCost = kChangesCost;

// What a section says otherwise than the registry's rows do that stand in it.
struct Override {
  const char* key;
  std::optional<Value> fallback;
  std::optional<Value> neutral;
  const char* doc;  // null: the row's own
  bool changes_result = true;
};

const std::vector<Override>& overrides() {
  static const std::vector<Override> all = {
      {"teacher.hidden", Ints{1024}, {}, nullptr},
      {"student.hidden", Ints{32}, {}, nullptr},
      {"teacher.normalize",
       {},
       "none",
       "Normalisation of the teacher's inputs; unless it is set, the weights file's own."},
      {"student.normalize", {}, "none", "Normalisation of the student's inputs."},
      {"data.normalize",
       {},
       "none",
       "Normalisation for `kdtrain eval` when the weights file names none.",
       false},
      {"teacher.train.augment", {}, {}, "Augmentation while the teacher trains."},
  };
  return all;
}

class Table {
 public:
  /// The following rows stand in this section; in_arm = false: in none of them an arm may differ.
  void section(std::string name, bool in_arm = true) {
    prefix_ = name.empty() ? "" : std::move(name) + ".";
    in_arm_ = in_arm;
  }
  void add(KeySpec row) {
    row.key = prefix_ + row.key;
    row.in_arm &= in_arm_;
    RETORT_CHECK(keys_.insert(row.key).second, "[schema] two rows give the key '", row.key,
                 "': an option of a loaded library needs another name");
    for (const Override& other : overrides()) {
      if (row.key != other.key) continue;
      if (other.fallback) row.fallback = *other.fallback;
      if (other.neutral) row.neutral = other.neutral;
      if (other.doc != nullptr) row.doc = other.doc;
      if (!other.changes_result) row.effects = 0;
    }
    rows_.push_back(std::move(row));
  }
  void add(std::vector<KeySpec> rows) {
    for (KeySpec& row : rows) add(std::move(row));
  }
  std::vector<KeySpec> take() {
    for (const std::string& key : keys_) {
      const auto inside = keys_.lower_bound(key + ".");
      RETORT_CHECK(inside == keys_.end() || !inside->starts_with(key + "."), "[schema] the key '",
                   key, "' is a table too, of '", *inside,
                   "': what a loaded library gives recipes needs another name");
    }
    return std::move(rows_);
  }

 private:
  std::string prefix_;
  bool in_arm_ = true;
  std::set<std::string> keys_;
  std::vector<KeySpec> rows_;
};

// How a network is trained: the same keys for the student and for a teacher trained by the recipe.
std::vector<KeySpec> training_keys() {
  return {
      count_option("epochs", 0, 0, 100000, "epochs",
                   "Passes over the training data; 0: train by steps."),
      count_option("steps", 0, 0, 1e9, "steps", "Optimizer updates; 0: train by epochs."),
      count_option("batch", 128, 1, 65536, "samples", "Samples in a step.").with(kCost),
      count_option("batch_tokens", 0, 0, 1e9, "tokens",
                   "Tokens in a step, on average, instead of batch: the order is cut where its "
                   "tokens pass multiples of it; 0: by samples.")
          .with(kCost),
      count_option("micro_batch", 0, 0, 65536, "samples",
                   "Samples that pass the networks at once (gradients are added up, less memory); "
                   "0: the whole batch, or slice of it.")
          .with(kCost),
      count_option(
          "slices", 0, 0, static_cast<double>(nn::kMostSlices), "",
          "Parts that a batch is cut into, whose gradients and batch statistics are added "
          "in an order that their number alone decides, so that ranks may share them; 0: as "
          "many as ranks at the first start, with one rank none.")
          .with(kCost),
      choice_option("optimizer", "sgd", "sgd|adamw", "Update rule.").with(kCost),
      number_option("lr", 0.1, 0, 1000, "", "Learning rate at the start (after warm-up)."),
      number_option("momentum", 0.9, 0, 0.99999, "", "Momentum of SGD.")
          .with(kCostsOnceOn)
          .unless(0.0),
      flag_option("nesterov", false, "Nesterov momentum for SGD."),
      number_option("beta1", 0.9, 0, 0.99999, "", "First-moment decay of AdamW."),
      number_option("beta2", 0.999, 0, 0.9999999, "", "Second-moment decay of AdamW."),
      number_option("epsilon", 1e-8, 1e-20, 1, "", "Added to the denominator of AdamW."),
      number_option("weight_decay", 0, 0, 100, "", "L2 (SGD) or decoupled (AdamW) weight decay."),
      flag_option("decay_norm_and_bias", true,
                  "Weight decay also on biases and batch-norm parameters."),
      choice_option("schedule", "constant", schedules(), "Learning rate over the run."),
      floats_option("milestones", {0.5, 0.75}, 0, 1, "fraction of the run",
                    "Where schedule = \"step\" multiplies the rate by gamma."),
      number_option("gamma", 0.1, 1e-9, 1, "", "Factor at each milestone."),
      number_option("lr_final", 0, 0, 1000, "", "Rate at the end of cosine and linear schedules."),
      number_option("warmup", 0, 0, 1, "fraction of the run", "Linear warm-up from 0."),
      number_option("clip_norm", 0, 0, 1e9, "", "Clip the global gradient norm to this; 0: off.")
          .with(kCostsOnceOn),
      choice_option("order", "shuffle", "shuffle|sequential|curriculum",
                    "Order of samples in an epoch.")};
}

void experiment_rows(Table* t) {
  t->section("", false);
  t->add({text_option("name", "", "Name of the experiment; empty: the recipe's file name.")
              .without(kResult),
          text_option("description", "", "One sentence for the report.").without(kResult),
          text_option("size", "default", "Which [size.NAME] table of overrides applies.")
              .without(kResult),
          ints_option("seeds", {1}, 0, 1e9, "", "Every arm is repeated for each of these.")
              .not_empty(),
          strings_option("arms", {}, "Names of the arms to run; empty: all."),
          strings_option("libraries", {},
                         "\"FILE HASH\" of each --load, in order: written to "
                         "recipe.resolved.toml; a recipe that has it wants just these.")});
  t->section("report", false);
  t->add(text_option("baseline", "",
                     "Arm that the others are compared with; empty: the report chooses.")
             .without(kResult));
}

// What `kdtrain sweep` reads; a run does not.
void sweep_rows(Table* t) {
  t->section("sweep", false);
  std::vector<KeySpec> rows{
      strings_option("ranges", {},
                     "What trials differ in: \"train.lr = log(1e-5, 1e-3)\", \"KEY = uniform(LOW, "
                     "HIGH)\", \"KEY = integers(LOW, HIGH)\", \"KEY = choice(A, B)\"; KEY as on "
                     "the command line."),
      count_option("trials", 16, 1, 1e6, "trials", "How many; --trials says otherwise."),
      text_option("metric", "validation.accuracy", "What is best: a split and a metric."),
      text_option("arm", "",
                  "The arm that is judged, and the only one that is run; empty: the "
                  "first."),
      count_option("seed", 1, 0, 1e9, "",
                   "Draws the values; trial k has the same for any number of "
                   "trials."),
      count_option("halving", 0, 0, 64, "",
                   "Successive halving: of each rung the best 1 in so many train so many times as "
                   "long, from fresh weights; 0: every trial trains to the end."),
      count_option("rungs", 3, 1, 16, "rungs", "Of halving; the last one trains to the end.")};
  for (KeySpec& row : rows) t->add(std::move(row).without(kResult));
}

void log_rows(Table* t) {
  t->section("log", false);
  t->add(flag_option("tensorboard", false,
                     "Also write TensorBoard's event files, one in the folder of each job: "
                     "tensorboard --logdir RUN/arms.")
             .without(kResult));
}

void data_rows(Table* t) {
  t->section("data");
  t->add(choice_option("format", "cifar10", data_formats(), "What the data is.")
             .with(kCost)
             .not_in_arm());
  t->add(data_options());
  t->add(count_option("train_sample", 0, 0, 1e9, "samples",
                      "Train on n of the training samples, drawn (the same for all arms); 0: all.")
             .not_in_arm());
  t->add(treatment_options());
  for (KeySpec& row : reading_options()) t->add(std::move(row).not_in_arm());
}

void teacher_rows(Table* t) {
  t->section("teacher", false);
  t->add({choice_option("arch", "resnet20", architectures(), "The teacher's architecture.")
              .with(kCost),
          text_option("weights", "",
                      "Weights (.safetensors, or a folder of Hugging Face's make), looked for as "
                      "given, in data.root and in RETORT_DATA; empty: train it by "
                      "[teacher.train].")});
  t->add(reading_options());
  t->add(model_options());
  t->add({ints_option("seeds", {1}, 0, 99, "",
                      "Seeds of teachers trained by the recipe; with several, every arm and seed "
                      "runs with each.")
              .not_empty(),
          choice_option("precision", "f32", "f32|bf16", "Arithmetic of the teacher's forward pass.")
              .with(kCost),
          choice_option(
              "cache", "auto", "auto|off|on",
              "Keep the teacher's logits per (sample, augmentation), on the CPU also of "
              "texts; of predicted words what its head reads, which is smaller. auto: "
              "where they are asked for again. On CUDA only \"on\" keeps any, in passes of 64 "
              "samples, and a student's last digits may be others by it.")
              .without(kResult)
              .with(kCost),
          number_option("cache_mib", 512, 1, 1048576, "MiB", "Largest memory of that cache.")
              .without(kResult)
              .with(kCost)});
  t->section("teacher");
  t->add(flag_option("allow_untrained", false,
                     "Accept a teacher at chance level (controls); the report shows it.")
             .without(kResult));
  t->section("teacher.train", false);
  t->add(training_keys());
  t->add({text_option("weights", "",
                      "Weights that its training starts from, a file or a folder, looked for as "
                      "teacher.weights; what a folder lacks of a head is drawn from the seed."),
          flag_option("continues", false,
                      "In a [[task]] behind the first: the teacher is trained further on the "
                      "task's samples, from the weights that it had before; else it teaches as the "
                      "first task left it, or as teacher.weights has it.")
              .with(kCost),
          strings_option("files", {}, "Files the teacher trains on; empty: data.train_files."),
          number_option("split", 0, 0, 0.99, "fraction",
                        "Train the teacher on this part of the training data and everything else "
                        "on the rest (0.6: the 3:2 split), also when teacher.weights names a "
                        "teacher trained so; 0: no split.")});
  t->add(treatment_options());
  t->add(count_option("checkpoint_steps", 0, 0, 1e9, "steps",
                      "Evaluate the teacher every n steps; distill.progressive.accuracies are "
                      "looked for at these moments; 0: every epoch."));
}

void student_rows(Table* t) {
  t->section("student");
  t->add(
      {choice_option("arch", "resnet8", architectures(), "The student's architecture.").with(kCost),
       text_option("weights", "",
                   "Initial weights (.safetensors, or a folder of Hugging Face's make, of which "
                   "parts of a head may lack); empty: drawn from the seed. A normalisation "
                   "that the file names holds unless student.normalize is set."),
       text_option("init", "",
                   "Start from layers of this one of its teachers: \"teacher\" or the name of a "
                   "[[model]]; empty: from student.weights or the seed."),
       strings_option("init_layers", {},
                      "What init copies: \"student_prefix=teacher_prefix\" for parameters whose "
                      "names begin so; empty: everything; of transformers every second layer, "
                      "embeddings and head.")});
  t->add(reading_options());
  t->add(model_options());
}

void distillation_rows(Table* t) {
  t->section("distill");
  t->add(
      {choice_option("method", "one_shot", "one_shot|progressive|extraction",
                     "one_shot: the final teacher throughout; progressive: teacher checkpoints, "
                     "then the final one; extraction: random projections of the teacher's "
                     "hidden layers, then the final output.")
           .with(kCost),
       choice_option("loss", "seed_lambda", "seed_lambda|distilbert_triple",
                     "seed_lambda: (1 - lambda) CE + lambda tau^2 KL; distilbert_triple: 2 CE + 5 "
                     "tau^2 KL + 1 (1 - cos) of the last hidden states at all positions, whatever "
                     "lambda is.")
           .with(kCost),
       number_option("lambda", 0.5, -10, 10, "",
                     "Weight of the distillation term; 1 - lambda weighs the cross-entropy. 0: "
                     "no teacher.")
           .unless(0.0),
       number_option(
           "cutoff", 0, 0, 1, "fraction of the run",
           "From here on lambda is 0: labels, and terms with a weight, alone; 0 or 1: never."),
       number_option("temperature", 4, 1e-3, 1e4, "",
                     "Softmax temperature of the distillation term (distill.tau_power: what it "
                     "multiplies the loss by).")});
  t->add(divergence_options());
  t->add({number_option("logits_memory", 0, 0, 1e6, "MiB",
                        "Logits that may be in memory at a time, of models that leave the product "
                        "with their last layer's weights to the loss: it goes over the rows in "
                        "chunks; 0: all logits of a batch at once.")
              .with(kCost),
          flag_option("recompute_logits", false,
                      "With logits_memory: multiply twice, and hold no second gradient of the last "
                      "layer's weights.")
              .with(kCost)});
  t->section("distill.reliance");
  t->add(reliance_options());
  t->section("distill.progressive");
  t->add({floats_option("accuracies", {0.7}, 0, 1, "accuracy",
                        "Teacher checkpoints before the final teacher: for each of these the first "
                        "whose accuracy exceeds it.")
              .with(kCost),
          ints_option("teacher_steps", {}, 1, 1e9, "steps",
                      "Teacher checkpoints before the final teacher: as it was after so many of "
                      "its own steps; not empty: instead of accuracies.")
              .with(kCost),
          count_option("steps", 1000, 1, 1e9, "steps",
                       "Length of the stage with each teacher checkpoint.")
              .with(kCost),
          flag_option("fresh_optimizer", false, "New optimizer state for every teacher.")});
  t->section("distill.extraction");
  t->add({choice_option("variant", "post", projection_variants(),
                        "Student side: activations, pre-activations, or a trainable linear head on "
                        "the activations.")
              .with(kCost),
          count_option("width", 16, 1, 65536, "",
                       "Projection width p of variant = \"head\" (others: the student's width).")
              .with(kCost),
          count_option("steps", 1000, 1, 1e9, "steps",
                       "Length of each stage, or with a window its greatest length.")
              .with(kCost),
          count_option("window", 0, 0, 1e9, "steps",
                       "End a stage earlier, when the mean loss of so many steps is not "
                       "min_improvement below that of as many before; 0: off.")
              .with(kCost),
          number_option("min_improvement", 0.01, 0, 1, "fraction",
                        "What a window must gain on the one before."),
          flag_option("centre", true, "Targets less their mean over the calibration samples."),
          flag_option("scale", true,
                      "Targets divided by their deviation over the calibration samples."),
          count_option("seed", 0, 0, 1e9, "", "Draws the projections; 0: from the arm's seed."),
          choice_option("teacher", "final", "final|untrained",
                        "Whose hidden layers are projected (untrained: the control).")
              .with(kCost),
          count_option("calibration", 2048, 2, 1e7, "samples",
                       "Training samples, drawn by the seed, that fix the mean and deviation of "
                       "the targets.")
              .with(kCost)});
  t->section("distill");
  t->add(term_options());
}

void curriculum_rows(Table* t) {
  t->section("curriculum");
  t->add(curriculum_options());
  t->add(count_option("maskings", 4, 1, 512, "",
                      "Scores of a text whose words are masked: means over so many maskings.")
             .with(kChangesOrder));
  t->add(choice_option(
             "masks", "drawn", "drawn|in_turn",
             "Of those maskings: each drawn as in training, or every word masked once over "
             "all of them (score = \"loss\" is then the pseudo-log-likelihood, exact with as "
             "many as the longest text has tokens).")
             .with(kChangesOrder));
  t->add(
      strings_option("models", {},
                     "Who scores with scorer = \"models\": names of [[model]]s, or \"teacher\"; of "
                     "several the mean of what they say of a sample.")
          .with(kChangesOrder));
  t->add(count_option("rescore_epochs", 0, 0, 1e9, "epochs",
                      "With scorer = \"student\": each time so many epochs are done the student "
                      "scores anew, and the order is made of that; 0: its start alone."));
}

void training_rows(Table* t) {
  t->section("train");
  t->add(training_keys());
  t->add(
      {count_option("window_shuffle", 0, 0, 1e9, "batches",
                    "Shuffle inside windows of this many batches when order is sequential or "
                    "curriculum; 0: off."),
       choice_option("precision", "f32", "f32|bf16",
                     "Arithmetic of the student (bf16 keeps f32 master weights).")
           .with(kCost),
       flag_option("tf32", false,
                   "CUDA: products of f32 may round their factors to TF32 (11 bits), teacher's "
                   "and student's; off: true f32.")
           .with(kCost)
           .not_in_arm(),
       flag_option("graph", true,
                   "CUDA: replay each training step as one captured graph; changes no byte.")
           .without(kResult)
           .with(kCost)
           .not_in_arm(),
       flag_option("graph_overlap", false,
                   "CUDA, with train.graph: the next batch's teacher runs beside the student's "
                   "step.")
           .without(kResult)
           .with(kCost)
           .not_in_arm(),
       flag_option("prefetch", false,
                   "CPU: make the next batch in a thread of its own; changes no byte.")
           .without(kResult)
           .with(kCost)
           .not_in_arm(),
       count_option("evaluate_steps", 0, 0, 1e9, "steps",
                    "Evaluate every n steps; 0: every epoch."),
       count_option("evaluate_batch", 500, 1, 65536, "samples",
                    "Samples made ready at once for an evaluation, in whole passes; changes no "
                    "byte.")
           .without(kResult)
           .with(kCost)
           .not_in_arm(),
       count_option("log_steps", 50, 1, 1e9, "steps",
                    "Write a line of split 'train' every n steps.")
           .without(kResult),
       count_option("checkpoint_epochs", 1, 0, 100000, "epochs",
                    "Write a checkpoint every n epochs; 0: only at the end and on a signal.")
           .without(kResult)
           .not_in_arm(),
       count_option("checkpoint_steps", 0, 0, 1e9, "steps",
                    "Write a checkpoint every n steps; 0: by epochs.")
           .without(kResult)
           .not_in_arm(),
       count_option("checkpoint_keep", 2, 1, 1000, "", "Checkpoints to keep in each arm's folder.")
           .without(kResult)
           .not_in_arm(),
       text_option("keep_best", "",
                   "A metric of an evaluation split, such as \"validation.loss\": the student's "
                   "weights where it was best are kept in best.safetensors; empty: the last ones "
                   "alone.")
           .without(kResult),
       number_option("stop_at_accuracy", 0, 0, 1, "accuracy",
                     "Stop an arm when the first evaluation split reaches this; the steps it "
                     "took are a metric (the cap counts as the value); 0: off."),
       text_option("stop_at", "",
                   "The same for any metric: \"accuracy >= 0.99\", \"loss <= 0.1\"; empty: "
                   "off."),
       flag_option("probe", false,
                   "Parity: report the degree-1 probe of the teacher's hidden layer.")
           .not_in_arm(),
       count_option("jobs", 0, 0, 1024, "",
                    "Arms and seeds that run at the same time on the CPU; 0: as many as there "
                    "are threads.")
           .without(kResult)
           .not_in_arm()});
}

}  // namespace

std::vector<KeySpec> make_schema() {
  Table table;
  experiment_rows(&table);
  log_rows(&table);
  sweep_rows(&table);
  data_rows(&table);
  teacher_rows(&table);
  student_rows(&table);
  distillation_rows(&table);
  curriculum_rows(&table);
  training_rows(&table);
  return table.take();
}

}  // namespace retort::tools
