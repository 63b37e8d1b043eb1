// The program as people run it: exit statuses, messages, run folders, resuming. Synthetic data.
#include <sys/file.h>

#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

TEST_F(Kdtrain, says_what_it_is) {
  expect({"--help"}, 0, "Exit codes");
  expect({"--version"}, 0, "retort ");
  expect({"ls"}, 0, "cifar10_six_arms");
  expect({"doctor"}, 0, "RETORT_DATA");
  expect({"selftest", "--device", "cpu"}, 0, "all correct");
  const Json facts = Json::parse(run({"doctor", "--json", "--threads", "1"}).out, "doctor");
  EXPECT_EQ(facts.at("threads").as_integer(), 1);
  EXPECT_GE(facts.at("cores").as_integer(), 1);
  EXPECT_GT(facts.at("memory_bytes").as_integer(), 1 << 20);
  EXPECT_FALSE(facts.at("cpu_features").items().empty());
  EXPECT_EQ(facts.at("auto_device").as_string(), facts.at("cuda").as_bool() ? "cuda" : "cpu");
  EXPECT_EQ(facts.at("cuda_reason").as_string().empty(), facts.at("cuda").as_bool());
  for (const auto& [key, value] : facts.members())
    EXPECT_EQ(key.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), key.npos) << key;
  expect({"schema", "distill"}, 0, "temperature");
  expect({"schema", "--json"}, 0, "\"key\":\"train.lr\"");
  expect({"validate", "cifar10_kd", "--no-data"}, 0, "2 arms x 1 seed");
}

TEST_F(Kdtrain, usage_errors_are_2) {
  expect({"rnu"}, 2, "did you mean 'run'?");
  expect({}, 2, "kdtrain --help");
  expect({"run", "--threads", "0"}, 2, "--threads");
  expect({"run", "nowhere.toml"}, 2, "embedded recipes");
  const std::string recipe = parity_recipe();
  expect({"run", recipe, "train.batch=0"}, 2, "expected an integer in [1, 65536], found 0");
  expect({"run", recipe, "train.epochs=-1"}, 2, "expected an integer in [0, 100000], found -1");
  expect({"run", "cifar10_six_arm"}, 2, "did you mean 'cifar10_six_arms'?");
  expect({"eval", "--model", "x", "--arch", "resnet21"}, 2, "--arch: expected one of resnet8,");
  expect({"run", recipe, "trian.lr=1"}, 2, "did you mean 'train.lr'?");
  expect({"run", write("bad.toml", "[train\n")}, 2, "bad.toml:1:");
  const std::string pictures = image_recipe();
  expect({"run", pictures, "train.batch=41", "--device", "cpu", "--out", "x"}, 2,
         "train.batch = 41 is larger than its 40 training samples");
  expect({"run", pictures, "data.root=", "--out", "x"}, std::getenv("RETORT_DATA") ? 4 : 2, "");
}

TEST_F(Kdtrain, bad_files_are_3_or_4_with_file_and_place) {
  const std::string recipe = image_recipe();
  const auto with = [&](const std::string& key, const std::string& value, int status,
                        const std::string& message) {
    expect({"run", recipe, key + "=" + value, "--device", "cpu", "--out", "x"}, status, message);
    EXPECT_FALSE(fs::exists(folder_ / "x")) << "nothing was started, so nothing stays";
  };
  with("data.train_files", "missing.bin", 4, "no file missing.bin nor missing.bin.xz in data, ");
  with("data.train_files", "a.bin,missing.bin", 4, "missing.bin");
  with("data.root", "elsewhere", 4, "elsewhere");
  write("data/short.bin", read(folder_ / "data/a.bin").substr(0, 5000));
  with("data.train_files", "short.bin", 3, "short.bin");
  std::string wrong = read(folder_ / "data/a.bin");
  wrong[3073 * 7] = 10;
  write("data/label.bin", wrong);
  with("data.train_files", "label.bin", 3, "label.bin");
  with("teacher.weights", "no.safetensors", 4, "no.safetensors");
  expect({"run", recipe, "--out", "/dev/null/x"}, 4, "/dev/null");
  expect({"eval", "--model", "no.safetensors", "--arch", "resnet8", "data.root=data"}, 4,
         "no.safe");
  expect({"report", path("none")}, 4, "none");
}

TEST_F(Kdtrain, what_cannot_be_meant_is_told_before_anything_starts) {
  const std::string images = image_recipe(), parity = parity_recipe();
  const auto with = [&](const std::string& recipe, const std::vector<std::string>& words,
                        const std::string& message) {
    std::vector<std::string> args{"run", recipe, "--device", "cpu", "--out", "x"};
    args.insert(args.end(), words.begin(), words.end());
    expect(args, 2, message);
    EXPECT_FALSE(fs::exists(folder_ / "x")) << message;
  };
  with(images, {"train.batch=41"}, "command line: arm 'unguided': train.batch = 41 is larger");
  with(images, {"data.train_limit=9"}, "images.toml:11:1: arm 'unguided': train.batch = 10 is");
  with(parity, {"train.steps=100"}, "parity.toml:17:13: arm 'progressive': distill.progressive.");
  with(parity, {"arms=head", "train.steps=150"}, "leaves none of 150 steps");
  write("data/x", "");
  const std::string longest(300, 'x');
  expect({"eval", "--model", longest, "--arch", "resnet8", "data.root=data"}, 4, "no file");
  expect({"run", images, "data.root=" + longest, "--out", "x"}, 4, "no folder");
  expect({"eval", "--model", longest, "--arch", "mlp", "--split", "train"}, 4, "no file");
}

TEST_F(Kdtrain, no_memory_is_5_and_no_device_is_8) {
#if defined(RETORT_SANITIZED)
  GTEST_SKIP() << "a sanitizer reserves more addresses than the limit leaves";
#endif
  const std::string recipe = image_recipe(), library = std::getenv("RETORT_CUDA_LIBRARY");
  ::setenv("RETORT_CUDA_LIBRARY", path("none.so").c_str(), 1);
  expect({"run", recipe, "--device", "cuda", "--out", "x"}, 8, "none.so");
  ::setenv("RETORT_CUDA_LIBRARY", library.c_str(), 1);
  address_limit_ = rlim_t{400} << 20;
  expect({"run", recipe, "student.arch=resnet34_cifar", "train.batch=40", "arms=unguided",
          "seeds=1", "--device", "cpu", "--threads", "1", "--out", "x"},
         5, "--resume");
}

TEST_F(Kdtrain, resuming_wants_the_data_and_the_teacher_that_the_run_began_with) {
  const std::string recipe = image_recipe();
  const std::vector<std::string> args{"run",      recipe, "seeds=1", "arms=kd_cl_inverse_sr",
                                      "--device", "cpu",  "--out",   "x"};
  ASSERT_EQ(run(args).status, 0);
  const auto again = [&](const std::vector<std::string>& words, int status,
                         const std::string& message) {
    std::vector<std::string> all = args;
    all.emplace_back("--resume");
    all.insert(all.end(), words.begin(), words.end());
    expect(all, status, message);
  };
  again({}, 0, "");
  const std::string kept = read(folder_ / "data/a.bin");
  images("a.bin", 40, 9);
  again({}, 3, "the data is not what teacher/1 began with");
  std::ofstream(folder_ / "data/a.bin", std::ios::binary) << kept;
  again({}, 0, "");

  // A teacher that changed between the sittings; the student's last checkpoint is an unfinished
  // one.
  fs::copy(folder_ / "x/arms/teacher/seed1/model.safetensors", folder_ / "t.safetensors");
  const std::vector<std::string> given{"run",
                                       recipe,
                                       "seeds=1",
                                       "arms=kd_cl_inverse_sr",
                                       "teacher.weights=t.safetensors",
                                       "train.epochs=400",
                                       "--device",
                                       "cpu",
                                       "--out",
                                       "y"};
  EXPECT_EQ(interrupted(given, 4, SIGTERM).status, 143);
  NamedTensors tensors;
  const SafetensorsReader reader(path("t.safetensors"));
  for (const SafetensorsEntry& entry : reader.header().entries)
    tensors.emplace_back(entry.name, reader.read(entry));
  for (auto& [name, tensor] : tensors)
    if (name.ends_with("weight") && tensor.rank() == 2) tensor.data<float>()[3] += 1;
  write_safetensors(path("t.safetensors"), tensors);
  std::vector<std::string> resumed = given;
  resumed.emplace_back("--resume");
  expect(resumed, 3, "the teacher's weights are not those");
}

TEST_F(Kdtrain, weights_of_a_checkpoint_are_evaluated_like_the_final_ones) {
  const std::string recipe = image_recipe();
  const Result r = run({"run", recipe, "seeds=1", "arms=unguided", "student.normalize=imagenet",
                        "--device", "cpu", "--out", "x"});
  ASSERT_EQ(r.status, 0) << r.err;
  const auto loss = [&](const std::string& file) {
    const Result e = run({"eval", "--model", "x/arms/unguided/seed1/" + file, "--arch", "resnet8",
                          "data.root=data", "data.test_files=t.bin", "--device", "cpu"});
    EXPECT_EQ(e.status, 0) << e.err;
    return Json::parse(e.out.substr(0, e.out.find('\n')), "eval").at("loss").as_number();
  };
  EXPECT_EQ(loss("ckpt-00000008/model.safetensors"), loss("model.safetensors"));
}

// A report asked for while the run goes on: neither is disturbed by the other.
TEST_F(Kdtrain, reports_beside_a_run_do_not_stop_it) {
  const std::string recipe = image_recipe();
  const pid_t training =
      start({"run", recipe, "seeds=[1,2,3]", "--device", "cpu", "--threads", "1", "--out", "x"});
  int reports = 0, status = 0;
  while (::waitpid(training, &status, WNOHANG) == 0) {
    if (lines(folder_ / "x/metrics.jsonl") < 2) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      continue;
    }
    const Result report = run({"report", "x"});
    EXPECT_EQ(report.status, 0) << report.err;
    ++reports;
  }
  EXPECT_EQ(status, 0);
  EXPECT_GT(reports, 0);
}

TEST_F(Kdtrain, six_arms_fill_the_run_folder_and_eval_score_report_read_it) {
  images("a.bin", 40, 1);
  images("b.bin", 40, 2);
  images("t.bin", 30, 3);
  const Result r =
      run({"run", "cifar10_six_arms", "data.root=data", "data.train_files=a.bin",
           "teacher.train.files=b.bin", "data.validation_files=t.bin", "data.test_files=t.bin",
           "teacher.arch=resnet8", "teacher.train.epochs=8", "teacher.train.batch=10",
           "teacher.train.lr=0.05", "train.epochs=1", "train.batch=10", "train.log_steps=2",
           "seeds=1", "--device", "cpu", "--out", "six"});
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("kd_cl_inverse_sr"));
  std::set<std::string> top, arms;
  for (const auto& entry : fs::directory_iterator(folder_ / "six"))
    top.insert(entry.path().filename().string());
  EXPECT_EQ(top, (std::set<std::string>{"arms", "curriculum", "files.json", "metrics.jsonl",
                                        "provenance.json", "recipe.resolved.toml", "report.html",
                                        "results.json"}));
  for (const auto& entry : fs::directory_iterator(folder_ / "six/arms")) {
    arms.insert(entry.path().filename().string());
    EXPECT_TRUE(fs::exists(entry.path() / "seed1/model.safetensors"));
  }
  EXPECT_EQ(arms.size(), 7u);  // six and the teacher
  EXPECT_THAT(read(folder_ / "six/curriculum/logit.csv"),
              ::testing::StartsWith("rank,index,label,score,correct,group\n"));
  EXPECT_TRUE(fs::exists(folder_ / "six/curriculum/logit_reverse_correct_only.csv"));
  // A key stands only where it means something: the teacher learns from nobody.
  std::istringstream trained(read(folder_ / "six/metrics.jsonl"));
  for (std::string text; std::getline(trained, text);) {
    const Json line = Json::parse(text, "metrics.jsonl");
    if (line.at("split").as_string() != "train") continue;
    for (const char* key : {"arm", "seed", "epoch", "step", "split", "loss", "loss_ce", "lr",
                            "accuracy", "samples_per_s"})
      EXPECT_NE(line.find(key), nullptr) << key << text;
    const std::string& arm = line.at("arm").as_string();
    const bool taught = arm != "teacher" && arm != "unguided";
    for (const char* key : {"lambda", "temperature"})
      EXPECT_EQ(line.find(key) != nullptr, taught) << key << text;
    // With selective reliance lambda may be 0 in all batches of a line: then nobody asks.
    const bool asked = taught && line.at("lambda").as_number() != 0;
    for (const char* key : {"loss_kd", "teacher_accuracy"})
      EXPECT_EQ(line.find(key) != nullptr, asked) << key << text;
  }

  // What it cost: shares of the time on every training line, memory at the end of every arm.
  std::istringstream log(read(folder_ / "six/metrics.jsonl"));
  int training = 0, finals = 0;
  for (std::string text; std::getline(log, text);) {
    const Json record = Json::parse(text, "metrics.jsonl");
    double sum = 0;
    for (const auto& [key, value] : record.members())
      if (key.starts_with("share_")) sum += value.as_number();
    const std::string arm = record.at("arm").as_string(), split = record.at("split").as_string();
    if (split == "train") {
      ++training;
      EXPECT_GT(sum, 0.5) << text;
      EXPECT_LE(sum, 1.001) << text;
      if (arm == "teacher" || arm == "unguided") {
        EXPECT_EQ(record.at("share_teacher").as_number(), 0) << text;
      }
    } else {
      EXPECT_EQ(sum, 0) << text;
    }
    if (split != "final") continue;
    ++finals;
    double roles = 0;
    for (const char* role :
         {"parameters", "gradients", "optimizer", "activations", "workspace", "data"})
      roles += record.at("memory_" + std::string(role) + "_mib").as_number();
    EXPECT_GT(record.at("memory_activations_mib").as_number(), 0);
    EXPECT_GE(roles, record.at("memory_mib").as_number() * 0.999) << text;
  }
  EXPECT_GE(training, 14);
  EXPECT_EQ(finals, 7);
  EXPECT_THAT(r.err, HasSubstr("samples/s: data "));
  EXPECT_THAT(r.err, HasSubstr("memory of tensors: peak "));
  const std::string page = read(folder_ / "six/report.html");
  EXPECT_THAT(page, HasSubstr("Time and memory"));
  EXPECT_THAT(page, HasSubstr("<h1>cifar10_six_arms</h1>"));
  EXPECT_THAT(page, HasSubstr("<p>CIFAR-10: Unguided, KD"));  // the description
  EXPECT_THAT(page, HasSubstr("KD-CL&#39;-SR"));              // arms as the recipe labels them

  const std::string model = "six/arms/kd/seed1/model.safetensors";
  const Result e = run({"eval", "--model", model, "--arch", "resnet8", "data.root=data",
                        "data.test_files=t.bin", "--logits", "logits.bin", "--device", "cpu"});
  ASSERT_EQ(e.status, 0) << e.err;
  EXPECT_EQ(Json::parse(e.out.substr(0, e.out.find('\n')), "eval").at("n").as_integer(), 30);
  EXPECT_EQ(fs::file_size(folder_ / "logits.bin"), 30u * 10 * 4);
  expect({"eval", "--model", model, "--arch", "resnet14", "data.root=data", "data.test_files=t.bin",
          "--device", "cpu"},
         3, "layer1");

  const Result s = run({"score", "cifar10_six_arms", "data.root=data", "data.train_files=a.bin",
                        "data.validation_files=[]", "data.test_files=t.bin", "teacher.arch=resnet8",
                        "teacher.weights=six/arms/teacher/seed1/model.safetensors", "--out",
                        "score.csv", "--device", "cpu"});
  ASSERT_EQ(s.status, 0) << s.err;
  EXPECT_EQ(read(folder_ / "score.csv"), read(folder_ / "six/curriculum/logit.csv"));

  const std::string results = read(folder_ / "six/results.json");
  fs::remove(folder_ / "six/results.json");
  fs::remove(folder_ / "six/report.html");
  expect({"report", "six/"}, 0, "kd_cl_sr");
  EXPECT_EQ(read(folder_ / "six/results.json"), results);
  EXPECT_EQ(read(folder_ / "six/report.html"), page);

  expect({"run", "cifar10_kd", "--out", "six"}, 2, "--resume");  // never over an earlier run
  expect({"run", "cifar10_kd", "--out", "six", "--resume"}, 2, "the recipe changed");

  // A teacher with a NaN, and one that knows nothing.
  NamedTensors tensors;
  const SafetensorsReader reader(path("six/arms/teacher/seed1/model.safetensors"));
  for (const SafetensorsEntry& entry : reader.header().entries)
    tensors.emplace_back(entry.name, reader.read(entry));
  for (auto& [name, tensor] : tensors)
    if (name.ends_with("weight") && tensor.rank() == 2) tensor.data<float>()[3] = NAN;
  write_safetensors(path("nan.safetensors"), tensors);
  const std::vector<std::string> common = {
      "run", "images.toml", "teacher.weights=nan.safetensors", "--device", "cpu", "--out", "y"};
  image_recipe();
  expect(common, 3, "nan.safetensors");
  EXPECT_FALSE(fs::exists(folder_ / "y")) << "nothing was started, so nothing stays";
  for (auto& [name, tensor] : tensors)
    if (tensor.dtype() == DType::kF32) tensor.fill(name.ends_with("running_var") ? 1.0 : 0.0);
  write_safetensors(path("zero.safetensors"), tensors);
  expect({"run", "images.toml", "teacher.weights=zero.safetensors", "teacher.allow_untrained=false",
          "--device", "cpu", "--out", "z"},
         3, "zero");
  EXPECT_FALSE(fs::exists(folder_ / "z")) << "a teacher is looked at before anything is written";
  expect({"score", "images.toml", "teacher.weights=zero.safetensors",
          "teacher.allow_untrained=false", "--device", "cpu", "--out", "z.csv"},
         3, "zero");
  EXPECT_FALSE(fs::exists(folder_ / "z.csv"));
}

TEST_F(Kdtrain, loss_that_is_not_finite_is_6_and_names_the_step) {
  const std::string recipe = image_recipe();
  expect({"run", recipe, "arms=unguided", "seeds=1", "train.lr=1000", "train.schedule=constant",
          "train.epochs=30", "--device", "cpu", "--out", "x"},
         6, "at step");
}

TEST_F(Kdtrain, resumed_runs_equal_uninterrupted_ones_at_any_thread_count) {
  const std::string recipe = parity_recipe();
  const Result whole = run({"run", recipe, "--device", "cpu", "--threads", "1", "--out", "whole"});
  ASSERT_EQ(whole.status, 0) << whole.err;
  const std::string want = content(folder_ / "whole");
  EXPECT_GT(want.size(), 1000u);
  const std::size_t all = lines(folder_ / "whole/metrics.jsonl");
  int stops = 0;
  for (const auto& [threads, share, signal] :
       {std::tuple{2, 0.1, SIGTERM}, {3, 0.5, SIGINT}, {1, 0.8, SIGTERM}}) {
    const std::string out = "t" + std::to_string(threads);
    const Result cut = interrupted(
        {"run", recipe, "--device", "cpu", "--threads", std::to_string(threads), "--out", out},
        static_cast<std::size_t>(share * static_cast<double>(all)), signal);
    if (cut.status != 0) {  // it may have been quicker than the signal
      ++stops;
      EXPECT_EQ(cut.status, 128 + signal) << cut.err;
      EXPECT_THAT(cut.err, HasSubstr("--resume"));
    }
    const Result rest = run({"run", recipe, "--device", "cpu", "--threads",
                             std::to_string(threads % 3 + 1), "--out", out, "--resume"});
    EXPECT_EQ(rest.status, 0) << rest.err;
    EXPECT_TRUE(content(folder_ / out) == want) << "after " << cut.err;
  }
  EXPECT_GE(stops, 1);
}

TEST_F(Kdtrain, image_runs_resume_to_the_same_bytes) {
#if defined(RETORT_SANITIZED)
  GTEST_SKIP() << "about bytes, half a minute in a sanitizer build; runs on a full disk resume too";
#endif
  const std::string recipe = image_recipe();
  const Result whole = run({"run", recipe, "--device", "cpu", "--threads", "2", "--out", "whole"});
  ASSERT_EQ(whole.status, 0) << whole.err;
  const Result cut =
      interrupted({"run", recipe, "--device", "cpu", "--threads", "3", "--out", "cut"}, 12, SIGINT);
  EXPECT_EQ(cut.status, 130) << cut.err;
  const Result rest =
      run({"run", recipe, "--device", "cpu", "--threads", "1", "--out", "cut", "--resume"});
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_EQ(content(folder_ / "cut"), content(folder_ / "whole"));
}

TEST_F(Kdtrain, full_disk_is_4_and_the_run_goes_on_afterwards) {
  const std::string recipe = image_recipe();
  const Result full =
      run({"run", recipe, "seeds=1", "--threads", "1", "--device", "cpu", "--out", "x"}, 100'000);
  EXPECT_EQ(full.status, 4) << full.err;
  const std::string log = read(folder_ / "x/metrics.jsonl");
  EXPECT_FALSE(log.empty());
  EXPECT_EQ(log.back(), '\n');  // whole lines only
  EXPECT_THAT(full.err, HasSubstr("to go on when the cause is gone:\n  kdtrain run " + recipe));
  EXPECT_THAT(full.err, HasSubstr("--out x --resume"));
  const Result rest = run({"run", recipe, "seeds=1", "--device", "cpu", "--out", "x", "--resume"});
  ASSERT_EQ(rest.status, 0) << rest.err;
  const Result whole = run({"run", recipe, "seeds=1", "--device", "cpu", "--out", "whole"});
  EXPECT_EQ(content(folder_ / "x"), content(folder_ / "whole"));
}

TEST_F(Kdtrain, one_run_at_a_time_in_a_folder) {
  fs::create_directories(folder_ / "x");
  const int lock = ::open(path("x").c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::flock(lock, LOCK_EX | LOCK_NB), 0);
  expect({"run", parity_recipe(), "--device", "cpu", "--out", "x"}, 2, "in use");
  ::close(lock);
}

TEST_F(Kdtrain, runs_on_the_emulated_device) {
  const std::string recipe = parity_recipe();
  const Result r = run({"run", recipe, "seeds=1", "teacher.seeds=1", "train.steps=6",
                        "distill.extraction.steps=3", "arms=head", "teacher.train.steps=6",
                        "data.test_size=64", "distill.extraction.calibration=64",
                        "arm.head.teacher.allow_untrained=true", "--device", "cuda", "--out", "x"});
  EXPECT_EQ(r.status, 0) << r.err;
}

// Steps as captured graphs, with the next batch's teacher beside them or not: the weights and the
// log of a run without graphs. Curriculum, lambda by sample, augmentation, a smaller last batch, a
// checkpoint in the middle.
TEST_F(Kdtrain, graphs_change_no_byte_of_a_run) {
#if defined(RETORT_SANITIZED)
  GTEST_SKIP() << "minutes in a sanitizer build, where GraphedStep's own tests run";
#endif
  const std::string recipe = image_recipe();
  const auto train = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> args{"run",
                                  recipe,
                                  "seeds=1",
                                  "arms=kd_cl_inverse_sr",
                                  "data.train_limit=9",
                                  "data.test_limit=2",
                                  "teacher.train.epochs=0",
                                  "teacher.train.steps=1",
                                  "teacher.train.batch=2",
                                  "train.batch=4",
                                  "train.epochs=3",
                                  "train.checkpoint_steps=4",
                                  "train.clip_norm=0.5",
                                  "--device",
                                  "cuda"};
    args.insert(args.end(), more.begin(), more.end());
    args.insert(args.end(), {"--out", out});
    const Result r = run(args);
    EXPECT_EQ(r.status, 0) << r.err;
    return content(folder_ / out);
  };
  const std::string want = train("eager", {"train.graph=false"});
  EXPECT_GT(want.size(), 500u);
  EXPECT_EQ(train("graph", {}), want);
  EXPECT_EQ(train("overlap", {"train.graph_overlap=true"}), want);
  EXPECT_EQ(train("tf32", {"train.tf32=true"}), want) << "emulated products are exact either way";
}

}  // namespace
}  // namespace retort::tools
