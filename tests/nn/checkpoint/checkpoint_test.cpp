#include "nn/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "engine/io/append_log.h"
#include "engine/ops/mse.h"
#include "kernels/conv2d/conv2d_choice.h"
#include "nn/checkpoint/weights.h"
#include "nn/models/registry.h"
#include "tests/support/close.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"

namespace retort::nn {
namespace {

using test::randn;
using test::same_bytes;
using test::slurp;
using test::spill;
using test::TemporaryFolder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

CheckpointContents contents_of(std::int64_t step) {
  CheckpointContents contents;
  contents.step = step;
  contents.state.set("step", step).set("note", "a\nb");
  const auto seed = static_cast<std::uint64_t>(step);
  contents.files.push_back({"model", {{"w", randn({40, 50}, seed)}}, {{"normalize", "cifar"}}});
  contents.files.push_back({"optimizer", {{"step", Tensor::from<std::int64_t>({step}, {})}}});
  return contents;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

void expect_step(const std::string& folder, std::int64_t step) {
  const auto found = read_newest_valid(folder);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->step, step);
  EXPECT_EQ(found->state.at("step").as_integer(), step);
  const CheckpointContents want = contents_of(step);
  EXPECT_TRUE(same_bytes(read_safetensors(found->file("model"))[0].second,
                         want.files[0].tensors[0].second));
}

TEST(Checkpoint, round_trip) {
  const TemporaryFolder folder;
  const std::string at = folder / "run/arm/seed0";
  EXPECT_FALSE(read_newest_valid(at).has_value());
  write_checkpoint(at, contents_of(7));
  expect_step(at, 7);
  EXPECT_THAT(names_in(at), ElementsAre("ckpt-00000007"));
  EXPECT_THAT(names_in(at + "/ckpt-00000007"), ElementsAre("MANIFEST.json", "model.safetensors",
                                                           "optimizer.safetensors", "state.json"));
  EXPECT_EQ(read_newest_valid(at)->state.at("note").as_string(), "a\nb");
}

TEST(Checkpoint, the_newest_are_kept) {
  const TemporaryFolder folder;
  for (const std::int64_t step : {1, 2, 3, 100000000, 100000001})
    write_checkpoint(folder.path(), contents_of(step), 2);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("ckpt-100000000", "ckpt-100000001"));
  expect_step(folder.path(), 100000001);
}

TEST(Checkpoint, the_same_step_again_replaces) {
  const TemporaryFolder folder;
  CheckpointContents contents = contents_of(5);
  contents.state.set("more", 1);
  write_checkpoint(folder.path(), contents_of(5), 1);
  write_checkpoint(folder.path(), contents, 1);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("ckpt-00000005"));
  EXPECT_EQ(read_newest_valid(folder.path())->state.at("more").as_integer(), 1);
}

TEST(Checkpoint, every_kind_of_damage_falls_back_to_the_one_before) {
  const struct {
    const char* what;
    void (*damage)(const std::string& path);
    const char* says;
  } cases[] = {
      {"bit flip",
       [](const std::string& path) {
         std::string bytes = slurp(path + "/model.safetensors");
         bytes[bytes.size() - 3] ^= 1;
         spill(path + "/model.safetensors", bytes);
       },
       "ckpt-00000002: model.safetensors: tensor 'w' has another content than was written"},
      {"bit flip in the header",
       [](const std::string& path) {
         std::string bytes = slurp(path + "/model.safetensors");
         bytes[bytes.find("cifar")] ^= 1;
         spill(path + "/model.safetensors", bytes);
       },
       "model.safetensors: its header has another content than was written"},
      {"cut",
       [](const std::string& path) {
         std::filesystem::resize_file(path + "/model.safetensors", 100);
       },
       "has 100 bytes"},
      {"missing file",
       [](const std::string& path) { std::filesystem::remove(path + "/optimizer.safetensors"); },
       "ckpt-00000002: optimizer.safetensors is missing"},
      {"missing manifest",
       [](const std::string& path) { std::filesystem::remove(path + "/MANIFEST.json"); },
       "No such file"},
      {"empty manifest", [](const std::string& path) { spill(path + "/MANIFEST.json", ""); },
       "not valid JSON"},
      {"foreign manifest", [](const std::string& path) { spill(path + "/MANIFEST.json", "[1]"); },
       "expected an object"},
      {"manifest that points outside",
       [](const std::string& path) {
         spill(path + "/MANIFEST.json",
               R"({"format":1,"step":2,"files":{"../ckpt-00000001/state.json":{"bytes":1,)"
               R"("xxh3_128":"x"}}})");
       },
       "not a plain file name"},
      {"manifest of another step",
       [](const std::string& path) {
         std::filesystem::copy_file(path + "/../ckpt-00000001/MANIFEST.json",
                                    path + "/MANIFEST.json",
                                    std::filesystem::copy_options::overwrite_existing);
       },
       "another step"},
      {"manifest without files",
       [](const std::string& path) {
         spill(path + "/MANIFEST.json", R"({"format":1,"step":2,"files":{}})");
       },
       "state.json is not listed"},
      {"a file in the place of the folder",
       [](const std::string& path) {
         std::filesystem::remove_all(path);
         spill(path, "x");
       },
       "Not a directory"},
  };
  for (const auto& c : cases) {
    const TemporaryFolder folder;
    write_checkpoint(folder.path(), contents_of(1));
    write_checkpoint(folder.path(), contents_of(2));
    c.damage(folder / "ckpt-00000002");
    SCOPED_TRACE(c.what);
    expect_step(folder.path(), 1);
    const auto found = read_newest_valid(folder.path());
    ASSERT_EQ(found->rejected.size(), 1u);
    EXPECT_THAT(found->rejected[0], HasSubstr(c.says));
    // Training goes on from 1 and writes 2 again.
    write_checkpoint(folder.path(), contents_of(2), 1);
    expect_step(folder.path(), 2);
    EXPECT_THAT(names_in(folder.path()), ElementsAre("ckpt-00000002"));
  }
}

TEST(Checkpoint, when_all_are_damaged_nothing_begins_anew_by_itself) {
  const TemporaryFolder folder;
  write_checkpoint(folder.path(), contents_of(1));
  write_checkpoint(folder.path(), contents_of(2));
  std::filesystem::remove(folder / "ckpt-00000001/state.json");
  std::filesystem::resize_file(folder / "ckpt-00000002/model.safetensors", 100);
  try {
    read_newest_valid(folder.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(error.what(), HasSubstr(folder.path() + ": every checkpoint is damaged; to begin "
                                                        "anew, remove this folder:"));
    EXPECT_THAT(error.what(), HasSubstr("/ckpt-00000001: state.json is missing"));
    EXPECT_THAT(error.what(), HasSubstr("/ckpt-00000002: model.safetensors has 100 bytes"));
  }
}

// Logs stay outside; a checkpoint knows how far they went.
TEST(Checkpoint, logs_are_cut_to_where_the_checkpoint_saw_them) {
  const TemporaryFolder folder;
  const std::string path = folder / "log.jsonl";
  const auto save = [&](std::int64_t step, const FileMark& mark) {
    CheckpointContents contents = contents_of(step);
    contents.logs["log.jsonl"] = mark;
    write_checkpoint(folder.path(), contents);
  };
  {
    AppendLog log(path);
    log.append("one\n");
    save(1, log.sync());
    log.append("two\n");
    save(2, log.sync());
    log.append("three\n");  // and then a kill
  }
  const auto found = read_newest_valid(folder.path());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->step, 2);
  {
    const AppendLog log(path, found->logs.at("log.jsonl"));
    EXPECT_EQ(slurp(path), "one\ntwo\n");
  }
  // Damage behind what an older checkpoint saw rejects only the newer one.
  spill(path, "one\ntwO\n");
  const auto older = read_newest_valid(folder.path());
  ASSERT_TRUE(older.has_value());
  EXPECT_EQ(older->step, 1);
  ASSERT_EQ(older->rejected.size(), 1u);
  EXPECT_THAT(older->rejected[0],
              HasSubstr("ckpt-00000002: the log log.jsonl has another content"));
  EXPECT_EQ(AppendLog::read(path, older->logs.at("log.jsonl")), "one\n");
  std::filesystem::remove(path);
  EXPECT_THROW(read_newest_valid(folder.path()), Error);
  CheckpointContents outside = contents_of(3);
  outside.logs["../log"] = {};
  EXPECT_THROW(write_checkpoint(folder.path(), outside), Error);
}

TEST(Checkpoint, every_cut_of_the_manifest_is_seen) {
  const TemporaryFolder folder;
  write_checkpoint(folder.path(), contents_of(1));
  const std::string path = folder / "ckpt-00000001", manifest = slurp(path + "/MANIFEST.json");
  for (std::size_t n = manifest.size(); n-- > 0;) {
    std::filesystem::resize_file(path + "/MANIFEST.json", n);
    ASSERT_NE(verify_checkpoint(path), "") << n;
  }
}

TEST(Checkpoint, newer_rubbish_is_removed_and_newer_good_ones_stay) {
  const TemporaryFolder folder;
  write_checkpoint(folder.path(), contents_of(9), 5);
  write_checkpoint(folder.path(), contents_of(8), 5);
  std::filesystem::remove(folder / "ckpt-00000009/state.json");
  write_checkpoint(folder.path(), contents_of(3), 1);
  EXPECT_THAT(names_in(folder.path()), ElementsAre("ckpt-00000003", "ckpt-00000008"));
}

// -- faults at every system call that changes the disk --------------------------------------------

#if defined(RETORT_SANITIZED)
constexpr int kEvery = 5;  // a fork of a sanitized process is slow
#else
constexpr int kEvery = 1;
#endif
int g_calls = 0, g_fail_at = 0;

int fail_with_full_disk(const char* call, const std::string&) {
  return ++g_calls == g_fail_at && std::string(call) != "remove" ? ENOSPC : 0;
}
int die(const char*, const std::string&) {
  if (++g_calls == g_fail_at) kill(getpid(), SIGKILL);
  return 0;
}
// File systems that cannot exchange two names.
int die_without_exchange(const char* call, const std::string&) {
  const bool exchange = std::string(call) == "exchange";
  if (!exchange && ++g_calls == g_fail_at) kill(getpid(), SIGKILL);
  return exchange ? EINVAL : 0;
}
struct Injected {
  explicit Injected(int (*fault)(const char*, const std::string&), int at) {
    g_calls = 0;
    g_fail_at = at;
    detail::before_io = fault;
  }
  ~Injected() { detail::before_io = nullptr; }
};

TEST(Checkpoint, a_full_disk_at_any_call_is_an_io_error_and_loses_nothing) {
  for (const std::int64_t step : {2, 1}) {  // a new step; the same step again
    int failures = 0;
    for (int at = 1; at < 100; at += kEvery) {
      const TemporaryFolder folder;
      write_checkpoint(folder.path(), contents_of(1), 2);
      const CheckpointContents next = contents_of(step);
      ErrorCode code = ErrorCode::kOk;
      {
        const Injected fault(fail_with_full_disk, at);
        try {
          write_checkpoint(folder.path(), next, 2);
        } catch (const Error& e) {
          code = e.code();
          EXPECT_THAT(e.what(), HasSubstr("No space left on device"));
        }
      }
      const auto found = read_newest_valid(folder.path());
      ASSERT_TRUE(found.has_value()) << "call " << at;
      EXPECT_TRUE(found->rejected.empty());
      if (code == ErrorCode::kOk) {
        expect_step(folder.path(), step);
        if (g_calls < at) break;  // ran to its end without reaching the fault
        continue;
      }
      ++failures;
      EXPECT_EQ(code, ErrorCode::kIo);
      for (const std::string& name : names_in(folder.path()))
        EXPECT_THAT(name, HasSubstr("ckpt-"));  // nothing half-written is left
    }
    EXPECT_GE(failures, 15 / kEvery);
  }
}

TEST(Checkpoint, a_kill_at_any_call_leaves_the_old_or_the_new_one) {
  for (const auto fault_of : {die, die_without_exchange})
    for (const std::int64_t step : {2, 1}) {
      int kills = 0;
      for (int at = 1; at < 100; at += kEvery) {
        const TemporaryFolder folder;
        write_checkpoint(folder.path(), contents_of(1), 1);
        const CheckpointContents next = contents_of(step);
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
          const Injected fault(fault_of, at);
          write_checkpoint(folder.path(), next, 1);
          _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        const auto found = read_newest_valid(folder.path());
        ASSERT_TRUE(found.has_value()) << "killed before call " << at;
        EXPECT_TRUE(found->rejected.empty());
        EXPECT_TRUE(found->step == 1 || found->step == step);
        expect_step(folder.path(), found->step);
        if (WIFEXITED(status)) break;
        ++kills;
        // The run goes on, to the same step or a later one, and clears up.
        const std::int64_t later = at % 2 == 0 ? 3 : found->step;
        write_checkpoint(folder.path(), contents_of(later), 1);
        expect_step(folder.path(), later);
        write_checkpoint(folder.path(), contents_of(3), 1);
        EXPECT_THAT(names_in(folder.path()), ElementsAre("ckpt-00000003"));
      }
      EXPECT_GE(kills, 15 / kEvery);
    }
}

TEST(Checkpoint, without_exchange_the_same_step_again_replaces) {
  const TemporaryFolder folder;
  CheckpointContents contents = contents_of(5);
  contents.state.set("more", 1);
  write_checkpoint(folder.path(), contents_of(5), 1);
  {
    const Injected fault(die_without_exchange, 1000);
    write_checkpoint(folder.path(), contents, 1);
  }
  EXPECT_THAT(names_in(folder.path()), ElementsAre("ckpt-00000005"));
  EXPECT_EQ(read_newest_valid(folder.path())->state.at("more").as_integer(), 1);
}

TEST(Checkpoint, an_unwritable_folder_is_an_io_error) {
  const TemporaryFolder folder;
  spill(folder / "file", "");
  try {
    write_checkpoint(folder / "file/run", contents_of(1));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kIo);
  }
  if (geteuid() == 0) return;  // root may write anywhere
  std::filesystem::create_directory(folder / "locked");
  chmod((folder / "locked").c_str(), 0500);
  EXPECT_THROW(write_checkpoint(folder / "locked", contents_of(1)), Error);
}

TEST(Checkpoint, settings_that_make_no_sense_are_refused) {
  const TemporaryFolder folder;
  EXPECT_THROW(write_checkpoint(folder.path(), contents_of(1), 0), Error);
  EXPECT_THROW(write_checkpoint(folder.path(), contents_of(-1)), Error);
  CheckpointContents twice = contents_of(1);
  twice.files.push_back(twice.files[0]);
  EXPECT_THROW(write_checkpoint(folder.path(), twice), Error);
  twice.files.back().name = "../x";
  EXPECT_THROW(write_checkpoint(folder.path(), twice), Error);
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(Checkpoint, resumed_training_equals_uninterrupted_training_byte_for_byte) {
  const TemporaryFolder folder;
  const ModelConfig architecture{
      .arch = "resnet8", .classes = 3, .seed = 4, .options = {{"shortcut", "B"}}};
  SgdConfig config;
  config.momentum = 0.9;
  config.weight_decay = 1e-4;
  const auto train = [](Model& model, Optimizer& optimizer, int from, int to) {
    for (int step = from; step < to; ++step) {
      const auto seed = static_cast<std::uint64_t>(step);
      optimizer.zero_grad();
      mse(model.forward(randn({2, 8, 8, 3}, seed)).logits, randn({2, 3}, seed + 100)).backward();
      optimizer.step();
    }
  };
  const auto whole = make_model(architecture);
  Sgd one(*whole, config);
  train(*whole, one, 0, 2);
  write_checkpoint(folder.path(), checkpoint_of(2, {{"", whole.get()}}, one, Json::object()));
  train(*whole, one, 2, 4);

  ModelConfig other = architecture;
  other.seed = 5;
  const auto resumed = make_model(other);
  Sgd two(*resumed, config);
  const auto found = read_newest_valid(folder.path());
  ASSERT_TRUE(found.has_value());
  restore_checkpoint(*found, {{"", resumed.get()}}, &two);
  EXPECT_EQ(two.steps(), 2);
  train(*resumed, two, 2, 4);
  EXPECT_EQ(weights_hash(*resumed), weights_hash(*whole));
  save_weights(*whole, folder / "a");
  save_weights(*resumed, folder / "b");
  EXPECT_EQ(slurp(folder / "a"), slurp(folder / "b"));
}

TEST(Checkpoint, several_modules_under_their_prefixes) {
  const TemporaryFolder folder;
  const auto a = make_model({.arch = "mlp", .seed = 1, .input = {3}}),
             b = make_model({.arch = "mlp", .seed = 2, .input = {3}}),
             c = make_model({.arch = "mlp", .seed = 3, .input = {3}}),
             d = make_model({.arch = "mlp", .seed = 4, .input = {3}});
  const TrainedModules trained{{"", a.get()}, {"head.", b.get()}};
  Sgd sgd(trained, {});
  write_checkpoint(folder.path(), checkpoint_of(1, trained, sgd, Json::object()));
  restore_checkpoint(*read_newest_valid(folder.path()), {{"", c.get()}, {"head.", d.get()}},
                     nullptr);
  EXPECT_EQ(weights_hash(*a), weights_hash(*c));
  EXPECT_EQ(weights_hash(*b), weights_hash(*d));
  EXPECT_THROW(restore_checkpoint(*read_newest_valid(folder.path()), {{"", c.get()}}, nullptr),
               Error);
}

TEST(Checkpoint, carries_the_choices_of_convolutions) {
  using kernels::Conv2dChoice;
  using kernels::Conv2dProblem;
  const Conv2dProblem problem{kernels::Conv2dPass::kForward,
                              {2, 8, 8, 64, 64, 3, 3, 1, 1},
                              DType::kBF16,
                              DType::kF32,
                              false,
                              true};
  kernels::Conv2dChoices& choices = kernels::conv2d_choices();
  const auto model = make_model({.arch = "mlp", .seed = 1, .input = {3}});
  const auto save = [&](const TemporaryFolder& folder, Json state) {  // as kdtrain does
    write_checkpoint(folder.path(), {1, std::move(state), {{"model", weights_of(*model)}}});
    return *read_newest_valid(folder.path());
  };
  const TemporaryFolder before, after;
  EXPECT_EQ(save(before, Json::object()).state.find("conv2d_choices"), nullptr);

  const std::string text = kernels::write_conv2d_choices({"a GPU", {{problem, {"cudnn", 3, 7.5}}}});
  choices.pin(text);
  ASSERT_TRUE(choices.find(problem).has_value());  // used, hence recorded
  const FoundCheckpoint saved = save(after, Json::object());
  choices.pin(kernels::write_conv2d_choices({"a GPU", {}}));
  EXPECT_FALSE(choices.find(problem).has_value());
  restore_checkpoint(saved, {{"", model.get()}}, nullptr);
  ASSERT_TRUE(choices.find(problem).has_value());
  EXPECT_TRUE(choices.find(problem)->same_as({"cudnn", 3}));

  Json hostile = Json::object();
  hostile.set("conv2d_choices", "forward of nothing\n");
  FoundCheckpoint bad = saved;
  bad.state = hostile;
  EXPECT_THROW(restore_checkpoint(bad, {{"", model.get()}}, nullptr), Error);
  choices.pin(kernels::write_conv2d_choices({"a GPU", {}}));
}

}  // namespace
}  // namespace retort::nn
