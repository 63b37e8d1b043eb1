// What a run is: its content, not the names of files; and what it says of itself.
#include "tests/tools/kdtrain_fixture.h"
#include "tools/kdtrain/prepare.h"
#include "tools/kdtrain/recipe_identity.h"

namespace retort::tools {
namespace {

class Identity : public Kdtrain {
 protected:
  std::vector<std::string> args(const std::vector<std::string>& more, const std::string& out) {
    std::vector<std::string> all{"run", image_recipe(), "seeds=1", "arms=unguided", "--device",
                                 "cpu", "--threads",    "1",       "train.epochs=1"};
    all.insert(all.end(), more.begin(), more.end());
    all.insert(all.end(), {"--out", out});
    return all;
  }
  Result resumed(const std::vector<std::string>& more, const std::string& out) {
    std::vector<std::string> all = args(more, out);
    all.emplace_back("--resume");
    return run(all);
  }
};

TEST_F(Identity, data_may_lie_elsewhere_if_it_is_the_same) {
  ASSERT_EQ(run(args({}, "x")).status, 0);
  const std::string before = content(folder_ / "x");
  fs::copy(folder_ / "data", folder_ / "copy");
  for (const std::string& root : {std::string("data/"), path("data"), std::string("copy")}) {
    const Result r = resumed({"data.root=" + root}, "x");
    EXPECT_EQ(r.status, 0) << r.err;
    EXPECT_THAT(r.err, HasSubstr("changed since the last sitting: data.root was "));
    EXPECT_EQ(content(folder_ / "x"), before);
  }
  std::string other = read(folder_ / "copy/a.bin");
  other[100] ^= 1;
  std::ofstream(folder_ / "copy/a.bin", std::ios::binary) << other;
  const Result r = resumed({"data.root=copy"}, "x");
  EXPECT_EQ(r.status, 3);
  EXPECT_THAT(r.err, HasSubstr("the data is not what"));
}

TEST_F(Identity, weights_may_lie_elsewhere_if_they_are_the_same) {
  ASSERT_EQ(run(args({"seeds=1,2"}, "first")).status, 0);
  fs::copy(folder_ / "first/arms/unguided/seed1/model.safetensors", folder_ / "a.safetensors");
  fs::copy(folder_ / "a.safetensors", folder_ / "b.safetensors");
  fs::copy(folder_ / "first/arms/unguided/seed2/model.safetensors", folder_ / "c.safetensors");
  ASSERT_EQ(run(args({"student.weights=a.safetensors"}, "x")).status, 0);
  EXPECT_EQ(resumed({"student.weights=b.safetensors"}, "x").status, 0);
  const Result r = resumed({"student.weights=c.safetensors"}, "x");
  EXPECT_EQ(r.status, 2);
  EXPECT_THAT(r.err, HasSubstr("student.weights was \"b.safetensors\", is \"c.safetensors\""));
}

TEST_F(Identity, more_seeds_and_arms_are_added_and_nothing_else_changes) {
  const std::vector<std::string> one{"arms=kd_cl_inverse_sr", "train.log_steps=3"};
  ASSERT_EQ(run(args(one, "x")).status, 0);
  const Result more = resumed({"seeds=1,2", "arms=unguided,kd_cl_inverse_sr", "train.log_steps=3",
                               "train.checkpoint_keep=3"},
                              "x");
  EXPECT_EQ(more.status, 0) << more.err;
  EXPECT_THAT(more.err, HasSubstr("seeds was [1], is [1, 2]"));
  EXPECT_THAT(more.err, HasSubstr("arm 'unguided' is new"));
  ASSERT_EQ(run(args({"seeds=1,2", "arms=unguided,kd_cl_inverse_sr", "train.log_steps=3"}, "whole"))
                .status,
            0);
  EXPECT_EQ(content(folder_ / "x"), content(folder_ / "whole"));
  const Result ready = resumed({"seeds=1,2", "arms=unguided,kd_cl_inverse_sr", "train.log_steps=3",
                                "train.evaluate_batch=7"},
                               "x");
  EXPECT_EQ(ready.status, 0) << ready.err;
  EXPECT_THAT(ready.err, HasSubstr("train.evaluate_batch was 500, is 7"));
  EXPECT_EQ(content(folder_ / "x"), content(folder_ / "whole"));
  const Result fewer = resumed(one, "x");
  EXPECT_EQ(fewer.status, 2);
  EXPECT_THAT(fewer.err, HasSubstr("the recipe changed"));
}

TEST_F(Identity, what_changes_results_is_refused) {
  ASSERT_EQ(run(args({}, "x")).status, 0);
  for (const char* change : {"train.lr=0.04", "train.micro_batch=5", "train.slices=5",
                             "train.batch=20", "student.arch=resnet14"}) {
    const Result r = resumed({change}, "x");
    EXPECT_EQ(r.status, 2) << change;
    EXPECT_THAT(r.err, HasSubstr("the recipe changed")) << change;
  }
}

// On the CPU a cache changes no byte; on CUDA it asks in passes of another size.
TEST(RecipeChanges, a_cache_of_the_teacher_is_part_of_the_identity_on_cuda) {
  const RecipeText six = find_recipe("cifar10_six_arms");
  const auto with = [&](const std::string& cache) {
    return parse_recipe(six.source, six.text, {"teacher.cache=" + cache}).recipe;
  };
  const auto changes = [&](const std::string& was, const std::string& is, Device device) {
    return changes_since(
        with(is), resolved_toml(with(was)), [](const std::string&) { return ""; }, {}, device);
  };
  for (const char* other : {"auto", "off"}) {
    EXPECT_EQ(changes("on", other, Device::kCuda).refused.size(), 1u) << other;
    EXPECT_EQ(changes(other, "on", Device::kCuda).refused.size(), 1u) << other;
    EXPECT_TRUE(changes(other, "on", Device::kCpu).refused.empty()) << other;
    EXPECT_EQ(changes(other, "on", Device::kCpu).told.size(), 1u) << other;
  }
  EXPECT_TRUE(changes("auto", "off", Device::kCuda).refused.empty());
}

TEST_F(Identity, weights_that_are_not_read_are_told) {
  const std::string arm = "arms=kd_cl_inverse_sr";
  ASSERT_EQ(run(args({arm}, "first")).status, 0);
  const std::string weights = "first/arms/teacher/seed1/model.safetensors";
  ASSERT_TRUE(fs::exists(folder_ / weights));
  const std::string told =
      "teacher.weights is a trained teacher: teacher.train.weights is not read";
  const Result both =
      run(args({arm, "teacher.weights=" + weights, "teacher.train.weights=" + weights}, "both"));
  EXPECT_EQ(both.status, 0) << both.err;
  EXPECT_THAT(both.err, HasSubstr(told));
  const Result one = run(args({arm, "teacher.weights=" + weights}, "one"));
  EXPECT_EQ(one.status, 0) << one.err;
  EXPECT_THAT(one.err, Not(HasSubstr(told)));
  EXPECT_EQ(content(folder_ / "both/arms"), content(folder_ / "one/arms"));
}

TEST_F(Identity, a_folder_that_is_not_there_cannot_be_resumed) {
  const Result r = resumed({}, "nowhere");
  EXPECT_EQ(r.status, 2);
  EXPECT_THAT(r.err, HasSubstr("cannot resume nowhere: there is no such folder"));
  EXPECT_FALSE(fs::exists(folder_ / "nowhere"));
}

TEST_F(Identity, a_run_says_where_it_came_from) {
  ASSERT_EQ(run(args({}, "x")).status, 0);
  const Json origin = Json::parse(read(folder_ / "x/provenance.json"), "provenance.json");
  for (const char* key : {"version", "commit", "started", "finished", "command", "machine",
                          "device", "threads", "data", "weights"})
    EXPECT_NE(origin.find(key), nullptr) << key;
  EXPECT_THAT(origin.at("command").as_string(), HasSubstr("kdtrain run "));
  EXPECT_THAT(origin.at("command").as_string(), HasSubstr("--threads 1"));
  EXPECT_EQ(origin.at("threads").as_integer(), 1);
  EXPECT_EQ(origin.at("data").members().size(), 2u);  // train, test
  const std::string results = read(folder_ / "x/results.json");
  EXPECT_THAT(results, HasSubstr("\"provenance\":" + origin.dump()));
  EXPECT_THAT(read(folder_ / "x/report.html"), HasSubstr("Where it came from"));
  EXPECT_THAT(read(folder_ / "x/recipe.resolved.toml"),
              HasSubstr(origin.at("data").at("train").as_string()));

  // Another sitting with other threads: the first stays known.
  std::vector<std::string> other{"run", image_recipe(), "seeds=1", "arms=unguided",  "--device",
                                 "cpu", "--threads",    "2",       "train.epochs=1", "--out",
                                 "x",   "--resume"};
  ASSERT_EQ(run(other).status, 0);
  const Json later = Json::parse(read(folder_ / "x/provenance.json"), "provenance.json");
  EXPECT_EQ(later.at("threads").as_integer(), 2);
  EXPECT_THAT(later.at("earlier").members().front().second.as_string(), HasSubstr("1 threads"));
}

TEST_F(Identity, validate_finds_what_the_run_would) {
  const std::string recipe = image_recipe();
  expect({"validate", recipe}, 0, "2 arms x 2 seeds");
  for (const auto& [change, status] : {std::pair{"data.train_files=nowhere.bin", 4},
                                       {"teacher.weights=nowhere.safetensors", 4},
                                       {"train.batch=41", 2},
                                       {"train.gamma=0", 2},
                                       {"train.keep_best=test.nothing", 2}}) {
    EXPECT_EQ(run({"validate", recipe, change}).status, status) << change;
    EXPECT_EQ(run({"plan", recipe, change, "--device", "cpu"}).status, status) << change;
    EXPECT_EQ(run({"run", recipe, change, "--device", "cpu", "--out", "x"}).status, status);
    EXPECT_FALSE(fs::exists(folder_ / "x")) << change;
  }
  EXPECT_EQ(run({"validate", recipe, "data.train_files=nowhere.bin", "--no-data"}).status, 0);
}

TEST(Prepare, the_smallest_part_of_a_batch) {
  EXPECT_EQ(smallest_part(40, 10, 0), 10);
  EXPECT_EQ(smallest_part(41, 10, 0), 1);
  EXPECT_EQ(smallest_part(40, 10, 3), 1);
  EXPECT_EQ(smallest_part(48, 10, 4), 2);
  EXPECT_EQ(smallest_part(47, 10, 4), 2);
  EXPECT_EQ(smallest_part(5, 10, 0), 5);
  EXPECT_EQ(smallest_part(7, 7, 1), 1);
  EXPECT_EQ(smallest_part(40, 10, 0, 4), 2);  // 2, 3, 2, 3
  EXPECT_EQ(smallest_part(43, 10, 0, 4), 1);  // three samples in four slices
  EXPECT_EQ(smallest_part(36, 12, 0, 4), 3);
  EXPECT_EQ(smallest_part(36, 12, 2, 4), 1);  // micro-batches of 2 and 1
  EXPECT_EQ(smallest_part(40, 10, 2, 4), 1);
  EXPECT_EQ(smallest_part(40, 10, 0, 0), 10);
}

// torchvision's stem leaves 1 x 1 pixels of 32 x 32 to the last stage of a ResNet.
// Of three channels, for either model: before a teacher is trained.
TEST_F(Identity, a_normalisation_of_other_channels_is_refused_before_anything_runs) {
  const std::string recipe = image_recipe();
  for (const char* who : {"student", "teacher"}) {
    const std::string key = std::string(who) + ".normalize=[[0.5,0.5],[1,1]]";
    expect({"validate", recipe, key}, 2, "for images of 3 channels, got 2 and 2");
    expect({"run", recipe, key, "--device", "cpu", "--out", who}, 2, "got 2 and 2");
    EXPECT_FALSE(fs::exists(folder_ / who));
  }
}

TEST_F(Identity, statistics_over_one_value_are_refused_before_anything_runs) {
  const std::string recipe = image_recipe();
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all{"validate", recipe, "arms=unguided", "student.arch=resnet18"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all);
  };
  for (const std::vector<std::string>& degenerate :
       std::vector<std::vector<std::string>>{{"train.batch=1"},
                                             {"train.batch=13"},  // 40 = 3 * 13 + 1
                                             {"train.micro_batch=1"}}) {
    const Result r = with(degenerate);
    EXPECT_EQ(r.status, 2) << degenerate[0] << r.err;
    EXPECT_THAT(r.err, HasSubstr("one value of each channel"));
  }
  EXPECT_EQ(with({"train.batch=10"}).status, 0);
  EXPECT_EQ(run({"validate", recipe, "train.batch=1", "arms=unguided"}).status, 0)
      << "the stem of CIFAR leaves 8 x 8";
}

TEST_F(Identity, recipes_are_shown_copied_and_listed) {
  const Result shown = run({"show", "cifar10_kd"});
  ASSERT_EQ(shown.status, 0);
  EXPECT_THAT(shown.out, HasSubstr("[[arm]]"));
  expect({"cp", "cifar10_kd", "my.toml"}, 0, "my.toml: a copy of embedded:cifar10_kd");
  EXPECT_EQ(read(folder_ / "my.toml"), shown.out);
  expect({"cp", "cifar10_kd", "my.toml"}, 2, "is there already");
  expect({"ls", "cifar10_kd"}, 0, "arms ");
  const Result list = run({"ls", "--json"});
  ASSERT_EQ(list.status, 0);
  const Json all = Json::parse(list.out, "ls");
  EXPECT_GE(all.items().size(), 4u);
  for (const Json& one : all.items()) EXPECT_FALSE(one.at("arms").items().empty());
  fs::copy(folder_ / "my.toml", folder_ / "lr=0.1.toml");
  expect({"validate", "lr=0.1.toml", "--no-data"}, 0, "2 arms");
}

TEST_F(Identity, runs_are_compared) {
  ASSERT_EQ(run(args({"seeds=1,2"}, "x")).status, 0);
  ASSERT_EQ(run(args({"seeds=1,2", "train.lr=0.02"}, "y")).status, 0);
  const Result r = run({"compare", "x", "y"});
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("train.lr was 0.05, is 0.02"));
  EXPECT_THAT(r.out, HasSubstr("test accuracy"));
  EXPECT_THAT(r.out, HasSubstr("on 2 common seeds, p = "));
  const Result json = run({"compare", "x", "y", "--json"});
  ASSERT_EQ(json.status, 0);
  const Json compared = Json::parse(json.out, "compare");
  for (const Json& one : compared.items()) {
    if (one.at("arm").as_string() != "unguided") continue;
    const Json &x = one.at("runs").items()[0], &y = one.at("runs").items()[1];
    EXPECT_NEAR(y.at("difference").as_number(), y.at("mean").as_number() - x.at("mean").as_number(),
                1e-9);
  }
  expect({"compare", "x"}, 2, "two run folders");
  expect({"compare", "x", "data"}, 4, "is no run folder");
}

TEST_F(Identity, the_best_weights_by_a_metric_are_kept) {
  const Result r =
      run(args({"train.keep_best=test.loss", "train.evaluate_steps=2", "train.lr=0.5"}, "x"));
  ASSERT_EQ(r.status, 0) << r.err;
  double best = 1e300;
  std::int64_t at = -1;
  std::istringstream log(read(folder_ / "x/metrics.jsonl"));
  for (std::string text; std::getline(log, text);) {
    const Json line = Json::parse(text, "metrics.jsonl");
    if (line.at("arm").as_string() == "teacher" || line.at("split").as_string() != "test") continue;
    if (line.at("loss").as_number() >= best) continue;
    best = line.at("loss").as_number();
    at = line.at("step").as_integer();
  }
  const std::string file = path("x/arms/unguided/seed1/best.safetensors");
  EXPECT_EQ(SafetensorsReader(file).header().metadata.at("step"), std::to_string(at));
  const Result e = run({"eval", "--model", file, "--arch", "resnet8", "data.root=data",
                        "data.test_files=t.bin", "--device", "cpu"});
  ASSERT_EQ(e.status, 0) << e.err;
  EXPECT_EQ(Json::parse(e.out, "eval").at("loss").as_number(), best);
}

TEST_F(Identity, a_knob_of_memory_changes_no_byte) {
  const auto with = [&](const std::string& cache, const std::string& out) {
    std::vector<std::string> all{
        "run", image_recipe(),          "seeds=1",        "--device", "cpu",   "--threads",
        "1",   "arms=kd_cl_inverse_sr", "train.epochs=2", cache,      "--out", out};
    EXPECT_EQ(run(all).status, 0);
    return content(folder_ / out);
  };
  const std::string kept = with("teacher.cache=on", "on");
  EXPECT_EQ(with("teacher.cache=off", "off"), kept);
  EXPECT_EQ(with("teacher.cache_mib=1", "little"), kept);
}

TEST_F(Identity, eval_gives_the_number_that_the_run_logged) {
  for (const char* precision : {"f32", "bf16"}) {
    ASSERT_EQ(run(args({std::string("train.precision=") + precision}, precision)).status, 0);
    double logged = 0;
    std::istringstream log(read(folder_ / precision / "metrics.jsonl"));
    for (std::string text; std::getline(log, text);) {
      const Json line = Json::parse(text, "metrics.jsonl");
      if (line.at("split").as_string() == "test") logged = line.at("loss").as_number();
    }
    const Result e =
        run({"eval", "--model", std::string(precision) + "/arms/unguided/seed1/model.safetensors",
             "--arch", "resnet8", "data.root=data", "data.test_files=t.bin", "--device", "cpu"});
    ASSERT_EQ(e.status, 0) << e.err;
    EXPECT_EQ(Json::parse(e.out, "eval").at("loss").as_number(), logged) << precision;
  }
}

TEST_F(Identity, a_pipe_may_hold_a_recipe) {
  image_recipe();
  const std::string command = "cd " + folder_.string() + " && cat images.toml | " + RETORT_KDTRAIN +
                              " validate /dev/stdin > piped.txt 2>&1";
  EXPECT_EQ(std::system(command.c_str()), 0);
  EXPECT_THAT(read(folder_ / "piped.txt"), HasSubstr("valid; 2 arms"));
}

// A record of CIFAR-10 has 3073 bytes: what samples.csv says leads back to the image.
TEST_F(Identity, samples_of_a_split_are_found_again_in_the_files) {
  const Result r = run({"run", image_recipe(), "seeds=1", "arms=kd_cl_inverse_sr", "train.epochs=1",
                        "teacher.train.files=[]", "teacher.train.split=0.5", "data.train_sample=30",
                        "train.batch=5", "--device", "cpu", "--out", "x"});
  ASSERT_EQ(r.status, 0) << r.err;
  const std::string records = read(folder_ / "data/a.bin");
  std::istringstream csv(read(folder_ / "x/samples.csv"));
  std::map<int, int> index;  // of the students
  std::set<int> all;
  int teachers = 0, sample = 0, of = 0;
  std::string line;
  for (std::getline(csv, line); std::getline(csv, line);) {
    const std::size_t comma = line.find(',');
    ASSERT_EQ(std::sscanf(line.c_str() + comma, ",%d,%d", &sample, &of), 2) << line;
    EXPECT_TRUE(all.insert(of).second) << "a part of both: " << line;
    if (line.starts_with("student,"))
      index[sample] = of;
    else
      ++teachers;
  }
  EXPECT_EQ(index.size() + static_cast<std::size_t>(teachers), 30u);
  std::istringstream order(read(folder_ / "x/curriculum/logit_reverse_exact.csv"));
  int rank = 0, label = 0, rows = 0;
  for (std::getline(order, line); std::getline(order, line); ++rows) {
    ASSERT_EQ(std::sscanf(line.c_str(), "%d,%d,%d", &rank, &sample, &label), 3) << line;
    EXPECT_EQ(records[static_cast<std::size_t>(index.at(sample)) * 3073], label) << line;
  }
  EXPECT_EQ(rows, static_cast<int>(index.size()));
  const Json pictures =
      Json::parse(read(folder_ / "x/curriculum/logit_reverse_exact.images.json"), "images.json");
  for (const char* end : {"easiest", "hardest"})
    for (const Json& picture : pictures.at(end).items()) {
      const auto at = static_cast<std::size_t>(picture.at("index").as_integer());
      EXPECT_EQ(picture.at("label").as_string(), std::to_string(records[at * 3073]));
    }
  EXPECT_THAT(read(folder_ / "x/report.html"), HasSubstr("<ul class=\"images\">"));
}

// Every class stands in the file for itself: the first 512 samples are of one class and a half.
TEST_F(Identity, a_good_teacher_is_accepted_on_a_file_sorted_by_class) {
  images("a.bin", 400, 1);
  images("unsorted.bin", 3000, 3);
  const std::string all = read(folder_ / "data/unsorted.bin");
  std::string sorted;
  for (char label = 0; label < 10; ++label)
    for (std::size_t at = 0; at < all.size(); at += 3073)
      if (all[at] == label) sorted += all.substr(at, 3073);
  std::ofstream(folder_ / "data/t.bin", std::ios::binary) << sorted;
  const std::string recipe = write("sorted.toml", R"(
name = "sorted"
data = { format = "cifar10", root = "data", train_files = ["a.bin"], test_files = ["t.bin"] }
[teacher]
arch = "resnet8"
train = { epochs = 2, batch = 20, lr = 0.05 }
[train]
epochs = 1
batch = 100
[[arm]]
name = "kd"
)");
  const Result r = run({"run", recipe, "--device", "cpu", "--out", "x"});
  EXPECT_EQ(r.status, 0) << r.err;
}

}  // namespace
}  // namespace retort::tools
