// What recipes of every kind train, against a record: weights, curricula and logged values, byte
// for byte. tests/golden/README.md says how records are made and when they may change.
#include <cstdlib>
#include <map>

#include "tests/tools/golden_changes.h"
#include "tests/tools/golden_probe.h"
#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

// Lines of a record by name, each with hashes (or short values) by key.
using Record = std::map<std::string, std::map<std::string, std::string>>;

std::string short_hash(std::string_view bytes) { return hash_bytes(bytes).substr(0, 12); }

class Golden : public Kdtrain {
 protected:
  void SetUp() override {
    Kdtrain::SetUp();
    writes_ = std::getenv("RETORT_GOLDEN_WRITE") != nullptr;
    static const std::string rounding = rounding_of_this_machine();
    compare_with("", rounding, this_machine());
    images("a.bin", 40, 1);
    images("b.bin", 40, 2);
    images("t.bin", 30, 3);
    images("v.bin", 20, 4);
  }

  /// The record of those that round as this one; else, of the same kind, the one that knows most of
  /// the changes. Then names, keys and what no rounding decides are compared (decided_without).
  void compare_with(const std::string& kind, const std::string& rounding,
                    const std::string& machine) {
    machine_ = machine;
    const fs::path folder = fs::path(RETORT_SOURCE_DIR) / "tests/golden";
    file_ = folder / (kind + rounding + ".txt");
    if (writes_ || fs::exists(file_)) return;
    exact_ = false;
    fs::path nearest;
    std::size_t most = 0;
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (name.size() != kind.size() + 20 || !name.starts_with(kind) || !name.ends_with(".txt"))
        continue;
      const Header header = read_record(entry.path()).first;
      ASSERT_NE(header.machine, machine)
          << "the kernels round otherwise than when " << name
          << " was made on a machine like this one: if that is meant, record again (README.md)";
      if (nearest.empty() || header.changes > most) most = header.changes, nearest = entry.path();
    }
    ASSERT_FALSE(nearest.empty()) << "no record at all: " << folder;
    file_ = nearest;
    std::printf("no record of those that round as %s%s: names, keys and what no rounding decides\n",
                kind.c_str(), rounding.c_str());
  }

  /// Whether sums that are rounded otherwise leave the value as it is: sizes, schedules, what a
  /// recipe says; but not where a result decides when training ends or a stage begins.
  static bool decided_without(const std::string& line, const std::string& key) {
    static const std::set<std::string> always{"arch",      "arm",        "seed",
                                              "normalize", "parameters", "n"};
    static const std::set<std::string> by_step{"step", "epoch", "lr", "stage", "temperature"};
    if (always.contains(key)) return true;
    return by_step.contains(key) && !line.starts_with("parity/") &&
           line.find("/progressive/") == std::string::npos &&
           line.find("/fresh/") == std::string::npos && line.find("/plateau/") == std::string::npos;
  }

  /// Where sums are rounded otherwise: a student may never get there, a note may have no reason.
  bool may_be_absent(const std::string& line, const std::string& key) const {
    return !exact_ && (key.starts_with("steps_to_") || line.ends_with("/note"));
  }

  /// Runs a recipe and records what its folder then holds.
  void record_run(const std::string& name, const std::string& recipe,
                  const std::vector<std::string>& more = {}, const char* device = "cpu") {
    std::vector<std::string> args{"run", recipe, "--device", device, "--out", name};
    args.insert(args.begin() + 2, more.begin(), more.end());
    const Result r = run(args);
    ASSERT_EQ(r.status, 0) << name << ": " << r.err;
    std::set<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / name))
      files.insert(entry.path());
    for (const fs::path& file : files) {
      const std::string line = fs::relative(file, folder_).string();
      if (line.find("/ckpt-") != std::string::npos) continue;
      if (line.ends_with("model.safetensors")) record_weights(line);
      if (line.ends_with(".csv")) got_[line]["bytes"] = short_hash(read(file));
    }
    record_log(name);
  }

  /// Names, shapes and bytes of the tensors; what the metadata says stands beside them.
  void record_weights(const std::string& file) {
    const SafetensorsReader reader(path(file));
    Hasher hasher;
    for (const SafetensorsEntry& entry : reader.header().entries) {
      const Tensor t = reader.read(entry);
      hasher.update(entry.name.data(), entry.name.size() + 1);
      hasher.update(entry.shape.begin(), static_cast<std::size_t>(entry.shape.rank()) * 8);
      hasher.update(t.raw(), entry.end - entry.begin);
    }
    auto& line = got_[file];
    line["tensors"] = hasher.hex().substr(0, 12);
    for (const char* key : {"arch", "arm", "seed", "step"})
      line[key] = reader.header().metadata.at(key);
    const auto normalize = reader.header().metadata.find("normalize");
    if (normalize != reader.header().metadata.end())
      line["normalize"] = short_hash(normalize->second);
  }

  /// For every arm, seed and split the sequence of each key's values.
  void record_log(const std::string& name) {
    std::map<std::string, std::vector<Json>> groups;
    std::istringstream log(read(folder_ / name / "metrics.jsonl"));
    for (std::string text; std::getline(log, text);) {
      Json line = Json::parse(text, "metrics.jsonl");
      const std::string group = line.at("arm").as_string() + "/" + line.at("seed").dump() + "/" +
                                line.at("split").as_string();
      groups[name + "/metrics/" + group].push_back(std::move(line));
    }
    for (const auto& [group, lines] : groups) record_values(group, lines);
  }
  void record_values(const std::string& name, const std::vector<Json>& lines) {
    std::set<std::string> keys;
    for (const Json& line : lines)
      for (const auto& [key, value] : line.members()) keys.insert(key);
    for (const std::string& key : keys) {
      if (key == "arm" || key == "seed" || key == "split" || is_measured(key)) continue;
      std::string values;
      for (const Json& line : lines)
        values += (line.find(key) ? line.at(key).dump() : "absent") + "\n";
      got_[name][key] = short_hash(values);
    }
  }
  static bool is_measured(const std::string& key) {  // another value in every run
    return key == "samples_per_s" || key == "wall_s" || key.starts_with("share_") ||
           key.starts_with("memory_");
  }

  /// What was recorded in this test against the lines of the record with this prefix.
  void expect_recorded(const std::string& prefix) {
    if (HasFailure()) return;
    const auto mine = [&](const std::string& name) { return name.starts_with(prefix); };
    std::size_t known = changes().size();
    Record recorded;
    if (fs::exists(file_)) {
      const auto [header, record] = read_record(file_);
      known = header.changes;
      recorded = record;
    }
    if (writes_) return write_record(known == changes().size() ? recorded : Record{}, mine);
    for (const auto& [name, keys] : got_) {
      ASSERT_TRUE(mine(name)) << name;
      for (const auto& [key, value] : keys) {
        const auto line = recorded.find(name);
        const std::string want = line == recorded.end()       ? "no such line"
                                 : line->second.contains(key) ? line->second.at(key)
                                                              : "no such key";
        if (may_be_absent(name, key) || (!exact_ && line != recorded.end() &&
                                         line->second.contains(key) && !decided_without(name, key)))
          continue;
        if (value != want && !was_meant(name, key, known))
          ADD_FAILURE() << name << ": " << key << " is " << value << "; recorded: " << want;
      }
    }
    for (const auto& [name, keys] : recorded)
      for (const auto& [key, value] : keys)
        if (mine(name) && !may_be_absent(name, key) &&
            (!got_.contains(name) || !got_.at(name).contains(key)) && !was_meant(name, key, known))
          ADD_FAILURE() << name << ": " << key << " is gone; recorded: " << value;
  }
  static bool was_meant(const std::string& name, const std::string& key, std::size_t known) {
    for (std::size_t i = known; i < changes().size(); ++i)
      if (const Change& c = changes()[i]; concerns(c.lines, name) && (*c.key == 0 || key == c.key))
        return true;
    return false;
  }
  static bool concerns(const std::string& lines, const std::string& name) {
    const std::size_t star = lines.find('*'), at = name.find(lines.substr(0, star));
    return at != std::string::npos &&
           (star == std::string::npos ||
            name.find(lines.substr(star + 1), at + star) != std::string::npos);
  }

  struct Header {
    std::size_t changes = 0;  // known when it was made
    std::string machine;      // "": not said
  };
  std::pair<Header, Record> read_record(const fs::path& file) const {
    Header header;
    Record record;
    std::istringstream text(read(file));
    for (std::string row; std::getline(text, row);) {
      std::istringstream words(row);
      std::string name, word;
      words >> name;
      if (name.empty() || name == "#") continue;
      if (name == "changes") {
        words >> header.changes;
        continue;
      }
      if (name == "machine") {
        words >> header.machine;
        continue;
      }
      while (words >> word)
        record[name][word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
    }
    return {header, record};
  }
  template <class Mine>
  void write_record(Record all, const Mine& mine) const {
    std::erase_if(all, [&](const auto& line) { return mine(line.first); });
    all.insert(got_.begin(), got_.end());
    fs::create_directories(file_.parent_path());
    std::ofstream out(file_, std::ios::binary | std::ios::trunc);
    out << "# Written by tests/tools/golden_test.cpp with RETORT_GOLDEN_WRITE=1; see README.md.\n"
        << "changes " << changes().size() << "\n"
        << "machine " << machine_ << "\n";
    for (const auto& [name, keys] : all) {
      out << name;
      for (const auto& [key, value] : keys) out << " " << key << "=" << value;
      out << "\n";
    }
    ASSERT_TRUE(out.flush()) << file_;
    std::printf("recorded in %s\n", file_.c_str());
  }

  std::string small_images(const std::string& name, const std::string& teacher,
                           const std::string& rest) const {
    return write(name, R"(
data = { format = "cifar10", root = "data", train_files = ["a.bin"], test_files = ["t.bin"] }
[teacher]
arch = "resnet8"
allow_untrained = true
)" + teacher + R"(
[student]
arch = "resnet8"
[train]
batch = 10
lr = 0.02
log_steps = 2
)" + rest);
  }

  std::string small_parity(const std::string& name, const std::string& rest) const {
    return write(name, R"(
data = { format = "parity", bits = 12, support = 3, test_size = 200 }
student = { arch = "mlp", hidden = [16] }
)" + rest);
  }

  Record got_;
  fs::path file_;
  std::string machine_;
  bool writes_ = false, exact_ = true;
};

std::string arm(const std::string& name, const std::string& keys) {
  return "[[arm]]\nname = \"" + name + "\"\n" + keys + "\n";
}

const std::string kCurriculum = "train.order = 'curriculum'\n";
const std::string kMinmax = "distill.reliance.mode = 'minmax'\n";
const std::string kExtraction = "distill.method = 'extraction'\n";

TEST_F(Golden, images) {
  // The six arms, with a teacher trained by the recipe and a set to validate on.
  std::string arms = "epochs = 1\nnesterov = true\nweight_decay = 5e-4\nschedule = 'cosine'\n";
  arms += "warmup = 0.2\n" + arm("unguided", "distill.lambda = 0.0") + arm("kd", "");
  arms += arm("kd_cl", kCurriculum);
  arms += arm("kd_cl_inverse", kCurriculum + "curriculum.inverse = 'reverse_correct_only'");
  arms += arm("kd_cl_sr", kCurriculum + kMinmax);
  arms += arm("kd_cl_inverse_sr", kCurriculum + kMinmax + "curriculum.inverse = 'reverse_exact'");
  const std::string trained =
      "train = { files = ['b.bin'], epochs = 3, batch = 10, lr = 0.05, nesterov = true, "
      "weight_decay = 5e-4, schedule = 'cosine', warmup = 0.2 }";
  const std::string six = small_images("six.toml", trained, arms);
  record_run("image_six", six, {"seeds=[1,2]", "data.validation_files=v.bin"});
  ASSERT_FALSE(HasFatalFailure());

  // Orders, pacing and reliance, with that teacher's weights and no cache of its logits.
  arms = "epochs = 1\n";
  const auto order = [&](const std::string& name, const std::string& keys) {
    arms += arm(name, kCurriculum + keys);
  };
  order("rank", "distill.reliance.mode = 'rank'");
  order("literal", "distill.reliance = { mode = 'literal', s = 'first_batch', clamp = false }");
  order("literal_sample",
        "distill.reliance = { mode = 'literal', per = 'sample' }\n"
        "curriculum.inverse = 'reverse_exact'");
  order("minmax_sample", kMinmax + "distill.reliance.per = 'sample'");
  order("window", kMinmax + "train.window_shuffle = 2");
  order("random", "curriculum.scorer = 'random'");
  order("unstratified", "curriculum.stratify = false\ncurriculum.name = 'plain'");
  for (const std::string score : {"prob", "logprob", "p_true", "margin", "entropy", "loss"})
    order(score, "curriculum.score = '" + score + "'\ntrain.epochs = 0\ntrain.steps = 2");
  for (const std::string pacing : {"fixed_exponential", "varied_exponential", "single_step",
                                   "linear", "quadratic", "root", "exp", "log", "step"})
    order("pace_" + pacing,
          kMinmax + "curriculum = { start = 0.25, pacing_steps = [2], full_at = 0.75, pacing = '" +
              pacing + "' }");
  arms += arm("sequential", "train.order = 'sequential'\ntrain.window_shuffle = 2");
  const std::string weights = "weights = 'image_six/arms/teacher/seed1/model.safetensors'\n";
  const std::string orders = small_images("orders.toml", weights + "cache = 'off'", arms);
  record_run("image_orders", orders);
  expect({"score", orders, "arms=margin", "--device", "cpu", "--out", "score.csv"}, 0, "");
  got_["image_score/margin.csv"]["bytes"] = short_hash(read(folder_ / "score.csv"));

  // Losses, optimizers, precisions, augmentation, initial weights, other nets.
  arms = "steps = 5\n";
  for (const std::string divergence :
       {"reverse_kl", "jensen_shannon", "total_variation", "skew_kl", "skew_reverse_kl"})
    arms += arm(divergence, "distill.divergence = '" + divergence + "'");
  arms += arm("hot", "distill.temperature = 7.5\ndistill.lambda = 0.9");
  arms += arm("only_teacher", "distill.lambda = 1.0\ndistill.temperature = 1.0");
  arms += arm("adamw",
              "train.optimizer = 'adamw'\ntrain.lr = 0.003\ntrain.weight_decay = 0.01\n"
              "train.clip_norm = 0.5\ntrain.decay_norm_and_bias = false\n"
              "train.schedule = 'linear'\ntrain.warmup = 0.3");
  arms += arm("steps", "train.schedule = 'step'\ntrain.momentum = 0.0\ntrain.milestones = [0.4]");
  arms += arm("bf16", "train.precision = 'bf16'");
  arms += arm("plain", "data.augment = 'none'\nstudent.normalize = 'none'");
  arms += arm("further", "student.weights = 'image_six/arms/kd/seed1/model.safetensors'");
  arms += arm("option_b", "student.shortcut = 'B'\ntrain.evaluate_steps = 3");
  arms += arm("wide", "student.arch = 'resnet18_cifar'\ntrain.steps = 1\ntrain.batch = 2");
  const std::string losses = small_images("losses.toml", weights, arms);
  record_run("image_losses", losses);
  record_run("image_bf16_teacher", losses,
             {"arms=hot,bf16", "teacher.precision=bf16", "teacher.cache=on"});

  const Result e =
      run({"eval", "--model", "image_six/arms/kd/seed2/model.safetensors", "--arch", "resnet8",
           "data.root=data", "data.test_files=t.bin", "--logits", "logits.bin", "--device", "cpu"});
  ASSERT_EQ(e.status, 0) << e.err;
  record_values("image_eval/kd", {Json::parse(e.out.substr(0, e.out.find('\n')), "eval")});
  got_["image_eval/logits"]["bytes"] = short_hash(read(folder_ / "logits.bin"));
  expect_recorded("image_");
}

TEST_F(Golden, stages_on_images) {
  std::string arms = "steps = 8\n[distill]\nprogressive = { accuracies = [0.1, 0.2], steps = 2 }\n";
  arms += "extraction = { steps = 2, width = 6, calibration = 16 }\n";
  const std::string progressive = "distill.method = 'progressive'\n";
  arms += arm("progressive", progressive);
  arms += arm("fresh", progressive + "distill.progressive.fresh_optimizer = true");
  arms += arm("post", kExtraction + "distill.extraction.seed = 9");
  arms += arm(
      "pre", kExtraction + "distill.extraction.variant = 'pre'\ndistill.extraction.centre = false");
  arms += arm("head", kExtraction +
                          "distill.extraction.variant = 'head'\n"
                          "train.optimizer = 'adamw'\ntrain.lr = 0.003");
  arms += arm("untrained", kExtraction +
                               "distill.extraction.teacher = 'untrained'\n"
                               "distill.extraction.scale = false");
  arms += arm("plateau", kExtraction +
                             "distill.extraction.window = 1\ntrain.lr = 0.0001\n"
                             "distill.extraction.min_improvement = 0.5");
  arms += arm("cl", kCurriculum);
  const std::string recipe = small_images("stages.toml", R"(cache = "on"
train = { split = 0.5, steps = 12, batch = 10, lr = 0.05, augment = "none", checkpoint_steps = 3 })",
                                          arms);
  record_run("stages", recipe);
  expect_recorded("stages");
}

TEST_F(Golden, parity) {
  std::string arms = arm("one_shot", "");
  arms += arm("mixed", "distill.lambda = 0.5\ndistill.temperature = 2.0");
  arms += arm("progressive", "distill.method = 'progressive'");
  arms += arm("post", kExtraction);
  arms += arm("pre", kExtraction + "distill.extraction.variant = 'pre'");
  arms += arm("head", kExtraction +
                          "distill.extraction.variant = 'head'\ndistill.extraction.width = 4\n"
                          "train.optimizer = 'adamw'\ntrain.lr = 0.01");
  arms += arm("untrained", kExtraction +
                               "distill.extraction.teacher = 'untrained'\n"
                               "teacher.allow_untrained = true");
  arms += arm("plateau", kExtraction + "distill.extraction.window = 20");
  arms += arm("deep", "student.hidden = [16, 8]\ntrain.clip_norm = 0.1");
  const std::string recipe = small_parity("parity.toml", R"(
seeds = [1, 2]
[teacher]
arch = "mlp"
hidden = [32]
seeds = [1, 2]
train = { steps = 1500, batch = 32, lr = 0.2, momentum = 0.0, checkpoint_steps = 50 }
[distill]
temperature = 1.0
lambda = 1.0
extraction.steps = 150
progressive.steps = 150
[train]
steps = 700
batch = 16
lr = 0.05
evaluate_steps = 70
log_steps = 64
probe = true
stop_at_accuracy = 0.9
)" + arms);
  record_run("parity", recipe);
  record_run("parity_drawn", recipe,
             {"arms=one_shot", "seeds=3", "teacher.seeds=1", "data.support_seed=5",
              "teacher.train.steps=300", "train.steps=100", "train.probe=false",
              "train.stop_at_accuracy=0", "arm.one_shot.teacher.allow_untrained=true"});
  expect_recorded("parity");
}

// Eager and captured steps: one record for both.
TEST_F(Golden, emulated_device) {
  compare_with("emulated-", rounding_of_the_emulated_device(), machine_of_the_emulated_device());
  const auto both = [&](const std::string& name, const std::string& recipe,
                        std::vector<std::string> more) {
    const Record before = got_;
    more.emplace_back("train.graph=false");
    record_run(name, recipe, more, "cuda");
    const Record eager = got_;
    got_ = before;
    fs::remove_all(folder_ / name);
    more.back() = "train.graph=true";
    record_run(name, recipe, more, "cuda");
    EXPECT_EQ(got_, eager) << "captured steps against eager ones";
  };
  const std::string cl = kCurriculum + kMinmax + "distill.reliance.per = 'sample'";
  both("emulated_image",
       small_images("small.toml", "train = { files = ['b.bin'], steps = 1, batch = 2, lr = 0.05 }",
                    "steps = 3\nclip_norm = 0.5\n" + arm("cl", cl)),
       {"data.train_limit=6", "data.test_limit=2", "train.batch=4"});
  std::string arms = arm("one_shot", "") + arm("post", kExtraction);
  arms +=
      arm("head", kExtraction + "distill.extraction.variant = 'head'\ntrain.optimizer = 'adamw'");
  both("emulated_parity", small_parity("small.toml", R"(
[teacher]
arch = "mlp"
hidden = [32]
allow_untrained = true
train = { steps = 6, batch = 32, lr = 0.2, momentum = 0.0 }
[distill]
extraction = { steps = 3, calibration = 64, width = 4 }
[train]
steps = 6
batch = 16
lr = 0.01
log_steps = 2
)" + arms),
       {"data.test_size=64"});
  expect_recorded("emulated_");
}

}  // namespace
}  // namespace retort::tools
