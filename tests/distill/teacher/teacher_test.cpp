#include "distill/teacher/teacher.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>

#include "nn/checkpoint/weights.h"
#include "nn/models/registry.h"
#include "tests/distill/models.h"
#include "tests/support/close.h"
#include "tests/support/random.h"

namespace retort::test {
namespace {

using namespace distill;

std::shared_ptr<LinearModel> model(std::uint64_t seed) {
  auto m = std::make_shared<LinearModel>(4, 3);
  m->initialize(seed);
  return m;
}

struct TemporaryFolder {
  std::filesystem::path path = std::filesystem::temp_directory_path() /
                               join("retort_teacher_test_", ::getpid(), "_", ++count);
  TemporaryFolder() { std::filesystem::create_directories(path); }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::string file() const { return (path / "cache.safetensors").string(); }
  static inline int count = 0;
};

TEST(Teacher, is_frozen_and_its_hash_is_of_its_weights) {
  const auto m = model(1);
  const Teacher teacher(m);
  EXPECT_FALSE(m->training());
  const Tensor logits = teacher.logits(randn({5, 4}, 1));
  EXPECT_FALSE(logits.requires_grad());
  EXPECT_EQ(teacher.hash(), Teacher(model(1)).hash());
  EXPECT_NE(teacher.hash(), Teacher(model(2)).hash());
  EXPECT_EQ(teacher.hash().size(), 32u);
  EXPECT_THROW(Teacher(nullptr), Error);
}

TEST(Teacher, folds_for_good_only_what_nobody_else_holds) {
  const auto resnet = [] { return nn::make_model({.arch = "resnet8", .classes = 5, .seed = 4}); };
  const auto shared = resnet(), reference = resnet();
  const Teacher of_shared(shared), of_its_own(resnet());
  EXPECT_EQ(nn::weights_hash(*shared), nn::weights_hash(*reference));
  EXPECT_NE(nn::weights_hash(of_its_own.model()), nn::weights_hash(*reference));
  EXPECT_EQ(of_its_own.hash(), of_shared.hash());
  const Tensor x = randn({3, 32, 32, 3}, 2);
  EXPECT_TRUE(same_bytes(of_its_own.logits(x), of_shared.logits(x)));
}

// Folding moves zeros: the constructor looks before it folds.
TEST(Teacher, tells_weights_that_nobody_loaded) {
  std::shared_ptr<nn::Model> zeros = nn::make_model({.arch = "resnet8", .classes = 5, .seed = 4});
  for (const auto& [path, tensor] : zeros->named_parameters()) tensor.detach().fill(0);
  EXPECT_TRUE(Teacher(std::move(zeros)).weights_are_zero());
  EXPECT_FALSE(Teacher(model(1)).weights_are_zero());
}

TEST(LogitCache, gives_the_same_bits_without_a_forward_pass) {
  const auto m = model(1);
  Teacher teacher(m);
  const auto cache = std::make_shared<LogitCache>(LogitCacheKey{"data", teacher.hash(), 3});
  teacher.use_cache(cache);
  const Tensor x = randn({5, 4}, 1);
  const std::vector<std::int64_t> samples{9, 2, 7, 0, 1'000'000'000'000};
  m->forwards = 0;
  const Tensor online = teacher.logits(x, samples, {});
  EXPECT_TRUE(all_close(online, teacher.logits(x)));
  m->forwards = 1;
  EXPECT_TRUE(same_bytes(teacher.logits(x, samples, {}), online));
  EXPECT_EQ(m->forwards, 1);
  // Other augmentation: other rows. Unnamed samples: online.
  teacher.logits(x, samples, std::vector<std::uint32_t>{0, 0, 0, 0, 3});
  EXPECT_EQ(m->forwards, 2);
  teacher.logits(x, {}, {});
  EXPECT_EQ(m->forwards, 3);
  // In another order.
  const std::vector<std::int64_t> two{7, 9};
  const Tensor rows = teacher.logits(randn({2, 4}, 5), two, {});
  EXPECT_TRUE(same_bytes(rows.slice(0, 1), online.slice(2, 3)));
  EXPECT_TRUE(same_bytes(rows.slice(1, 2), online.slice(0, 1)));
  const LogitCacheStatistics s = cache->statistics();
  EXPECT_EQ(s.hits, 5u + 4 + 2);
  EXPECT_EQ(s.misses, 5u + 1);
  EXPECT_EQ(s.entries, 6);
}

TEST(LogitCache, cap_refuses_rows_but_answers_stay_right) {
  const auto m = model(1);
  Teacher teacher(m);
  const auto cache =
      std::make_shared<LogitCache>(LogitCacheKey{"data", teacher.hash(), 3}, 2 * (12 + 16));
  teacher.use_cache(cache);
  const Tensor x = randn({4, 4}, 1);
  const std::vector<std::int64_t> samples{0, 1, 2, 3};
  const Tensor first = teacher.logits(x, samples, {});
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(same_bytes(teacher.logits(x, samples, {}), first));
  EXPECT_EQ(cache->statistics().entries, 2);
  EXPECT_EQ(cache->statistics().refused, 6u);
}

TEST(LogitCache, file_round_trip) {
  const TemporaryFolder folder;
  Teacher teacher(model(1));
  const LogitCacheKey key{"data", teacher.hash(), 3};
  const Tensor x = randn({3, 4}, 1);
  const std::vector<std::int64_t> samples{5, 1, 3};
  const std::vector<std::uint32_t> augment{0, 0xFFFFFFFFu, 7};
  teacher.use_cache(std::make_shared<LogitCache>(key, 1 << 20, folder.file()));
  const Tensor logits = teacher.logits(x, samples, augment);
  teacher.cache()->save();
  const auto m = model(1);
  Teacher again(m);
  again.use_cache(std::make_shared<LogitCache>(key, 1 << 20, folder.file()));
  EXPECT_EQ(again.cache()->statistics().from_file, 3);
  EXPECT_EQ(again.cache()->statistics().note, "");
  EXPECT_TRUE(same_bytes(again.logits(x, samples, augment), logits));
  EXPECT_EQ(m->forwards, 0);
}

TEST(LogitCache, a_file_that_does_not_fit_is_not_used_and_can_be_replaced) {
  const TemporaryFolder folder;
  const std::vector<std::int64_t> samples{5, 1};
  const std::vector<float> rows{1, 2, 3, 4, 5, 6};
  const LogitCacheKey key{"data", "teacher", 3};
  LogitCache first(key, 1 << 20, folder.file());
  first.insert(samples, {}, rows);
  first.save();
  for (const LogitCacheKey& other :
       {LogitCacheKey{"other", "teacher", 3}, LogitCacheKey{"data", "other", 3},
        LogitCacheKey{"data", "teacher", 2}, LogitCacheKey{"data", "teacher", 3, "f32"}}) {
    const LogitCacheStatistics s = LogitCache(other, 1 << 20, folder.file()).statistics();
    EXPECT_EQ(s.entries, 0);
    EXPECT_NE(s.note.find("was not used"), std::string::npos) << s.note;
  }
  EXPECT_EQ(LogitCache(key, 30, folder.file()).statistics().entries, 0);  // over the cap
  // Every damaged byte of the content is noticed.
  std::ifstream in(folder.file(), std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(in)), {});
  for (const std::size_t at :
       {std::size_t{3}, good.size() / 2, good.size() - 30, good.size() - 1}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x40);
    std::ofstream(folder.file(), std::ios::binary) << bad;
    EXPECT_EQ(LogitCache(key, 1 << 20, folder.file()).statistics().entries, 0) << at;
  }
  std::ofstream(folder.file(), std::ios::binary) << good.substr(0, good.size() - 5);
  LogitCache cut(key, 1 << 20, folder.file());
  EXPECT_EQ(cut.statistics().entries, 0);
  cut.insert(samples, {}, rows);
  cut.save();
  EXPECT_EQ(LogitCache(key, 1 << 20, folder.file()).statistics().from_file, 2);
}

TEST(LogitCache, store_shares_one_cache_per_key) {
  const TemporaryFolder folder;
  LogitCacheStore store(1 << 20, folder.path.string());
  const auto a = store.get({"data", "teacher", 3});
  EXPECT_EQ(a, store.get({"data", "teacher", 3}));
  EXPECT_NE(a, store.get({"data", "teacher2", 3}));
  EXPECT_NE(a, store.get({"data", "teacher", 3, "f32 normalize=\"cifar\""}));
  a->insert(std::vector<std::int64_t>{1}, {}, std::vector<float>{1, 2, 3});
  store.save();
  EXPECT_EQ(LogitCacheStore(1 << 20, folder.path.string())
                .get({"data", "teacher", 3})
                ->statistics()
                .from_file,
            1);
  EXPECT_EQ(store.statistics().entries, 1);
}

std::shared_ptr<LogitCache> cache_of(const Teacher& teacher) {
  return std::make_shared<LogitCache>(LogitCacheKey{"data", teacher.hash(), teacher.classes()});
}

TEST(LogitCache, a_row_has_the_same_bits_whatever_batch_it_came_in_first) {
  const auto check = [](std::shared_ptr<nn::Model> model, const Tensor& x, const char* what) {
    Teacher teacher(std::move(model));
    std::vector<std::int64_t> samples(150);
    std::iota(samples.begin(), samples.end(), 0);
    teacher.use_cache(cache_of(teacher));
    const Tensor want = teacher.logits(x, samples, {});
    teacher.use_cache(cache_of(teacher));
    for (const auto& [begin, end] :
         {std::pair<std::int64_t, std::int64_t>{148, 150}, {30, 31}, {0, 100}, {90, 150}}) {
      const std::span<const std::int64_t> part(samples.data() + begin,
                                               static_cast<std::size_t>(end - begin));
      EXPECT_TRUE(same_bytes(teacher.logits(x.slice(begin, end), part, {}), want.slice(begin, end)))
          << what << begin;
    }
  };
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    check(nn::make_model({.arch = "mlp",
                          .classes = 10,
                          .seed = 1,
                          .options = {{"hidden", nn::Ints{300}}},
                          .input = {40}}),
          randn({150, 40}, 1).to(dtype), "mlp ");
    check(nn::make_model({.arch = "resnet8", .classes = 10, .seed = 1}),
          randn({150, 32, 32, 3}, 2).to(dtype), "resnet ");
  }
}

// Texts end to end, each of a length of its own; `choices` sequences make one sample.
nn::Inputs texts(std::int64_t samples, std::int64_t choices, DType activations) {
  std::vector<std::int32_t> ids, starts{0};
  for (std::int64_t s = 0; s < samples * choices; ++s) {
    for (std::int64_t i = 0; i < 1 + s * 7 % 23; ++i)
      ids.push_back(static_cast<std::int32_t>((3 * s + i * i) % 60));
    starts.push_back(static_cast<std::int32_t>(ids.size()));
  }
  nn::Inputs inputs = nn::Inputs::tokens(Tensor::from(ids, {static_cast<std::int64_t>(ids.size())}),
                                         std::move(starts));
  inputs.choices = choices;
  inputs.activations = activations;
  return inputs;
}

// Alone, in few rows and in many; a width of 72 is no multiple of a vector or a tile.
TEST(LogitCache, a_text_has_the_same_bits_whatever_batch_it_came_in_first) {
  for (const nn::TextTask task : {nn::TextTask::kClassification, nn::TextTask::kMultipleChoice})
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const std::int64_t choices = task == nn::TextTask::kMultipleChoice ? 3 : 1;
      const nn::Options options{{"layers", std::int64_t{2}},
                                {"hidden_size", std::int64_t{72}},
                                {"heads", std::int64_t{2}},
                                {"intermediate", std::int64_t{150}}};
      Teacher teacher(nn::make_model({.arch = "bert",
                                      .classes = 3,
                                      .seed = 1,
                                      .options = options,
                                      .task = task,
                                      .ids = 60,
                                      .choices = choices}));
      const nn::Inputs all = texts(90, choices, dtype);
      std::vector<std::int64_t> samples(90);
      std::iota(samples.begin(), samples.end(), 0);
      teacher.use_cache(cache_of(teacher));
      const Tensor want = teacher.logits(all, samples, {});
      EXPECT_EQ(want.shape(), (Shape{90, 3}));
      EXPECT_TRUE(all_close(want, teacher.logits(all).to(DType::kF32),
                            dtype == DType::kBF16 ? Tolerance{2e-2, 2e-2} : Tolerance{1e-4, 1e-5}));
      EXPECT_TRUE(same_bytes(teacher.logits(all, samples, {}), want));
      EXPECT_EQ(teacher.cache()->statistics().hits, 90u);
      for (const auto& [begin, end] :
           {std::pair<std::int64_t, std::int64_t>{30, 31}, {88, 90}, {0, 13}, {10, 88}}) {
        teacher.use_cache(cache_of(teacher));
        const std::span<const std::int64_t> part(samples.data() + begin,
                                                 static_cast<std::size_t>(end - begin));
        EXPECT_TRUE(
            same_bytes(teacher.logits(all.slice(begin, end), part, {}), want.slice(begin, end)))
            << nn::name_of(task) << " " << name_of(dtype) << " " << begin;
      }
    }
}

std::shared_ptr<nn::Model> small_masked_lm() {
  return nn::make_model({.arch = "bert",
                         .seed = 1,
                         .options = {{"layers", std::int64_t{1}},
                                     {"hidden_size", std::int64_t{8}},
                                     {"heads", std::int64_t{1}},
                                     {"intermediate", std::int64_t{8}}},
                         .task = nn::TextTask::kMaskedLm,
                         .ids = 60});
}

// Of masked words a text has as many rows as are asked for: no place in a cache of one row a sample.
TEST(LogitCache, refuses_texts_of_several_rows) {
  Teacher teacher(small_masked_lm());
  teacher.use_cache(cache_of(teacher));
  nn::Inputs inputs = texts(2, 1, DType::kF32);
  const std::vector<std::int64_t> samples{0, 1};
  EXPECT_THROW(teacher.logits(inputs, samples, {}), Error);
  EXPECT_THROW(
      teacher.logits(nn::Inputs::tokens(inputs.values, inputs.starts_on_host, {0, 2}), samples, {}),
      Error);
}

// What the head reads stands for its logits: the same bits whatever else was asked, and kept or not.
TEST(LogitCache, features_of_words) {
  for (const char* arch : {"bert", "gpt2"})
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const bool masked = std::string(arch) == "bert";
      Teacher teacher(
          nn::make_model({.arch = arch,
                          .seed = 1,
                          .options = {{"layers", std::int64_t{2}},
                                      {"hidden_size", std::int64_t{72}},
                                      {"heads", std::int64_t{2}},
                                      {"intermediate", std::int64_t{150}}},
                          .task = masked ? nn::TextTask::kMaskedLm : nn::TextTask::kCausalLm,
                          .ids = 60}));
      const auto use_fresh_cache = [&](std::uint64_t bytes = 1 << 20) {
        teacher.use_cache(std::make_shared<LogitCache>(
            LogitCacheKey{"data", teacher.hash(), 72, "", CachedRows::kFeatures}, bytes));
      };
      // Of each text its first token, and its third where it has one.
      const nn::Inputs plain = texts(40, 1, dtype);
      std::vector<std::int32_t> wanted, of_row;
      for (std::int32_t b = 0; b < 40; ++b)
        for (const std::int32_t at : {0, 2}) {
          const auto first = plain.starts_on_host[static_cast<std::size_t>(b)];
          if (first + at >= plain.starts_on_host[static_cast<std::size_t>(b) + 1]) continue;
          wanted.push_back(first + at);
          of_row.push_back(b);
        }
      nn::Inputs inputs = nn::Inputs::tokens(plain.values, plain.starts_on_host, wanted);
      inputs.activations = dtype;
      nn::Batch batch(inputs, Tensor());
      batch.set_rows(of_row);
      for (std::int64_t b = 0; b < 40; ++b)
        batch.sample.push_back(7 * b), batch.variant.push_back(5);
      const auto ask = [&](const nn::Batch& part) {
        return teacher.features(part.inputs[0], part.sample, part.variant,
                                part.sample_of_row_on_host);
      };
      const auto rows = static_cast<std::int64_t>(wanted.size());
      use_fresh_cache();
      const nn::Outputs want = ask(batch);
      EXPECT_EQ(want.features.shape(), (Shape{rows, 72}));
      EXPECT_TRUE(all_close(nn::logits_of(want), teacher.logits(inputs).to(DType::kF32),
                            dtype == DType::kBF16 ? Tolerance{3e-2, 3e-2} : Tolerance{1e-4, 1e-5}));
      EXPECT_EQ(teacher.cache()->statistics().misses, static_cast<std::uint64_t>(rows));
      EXPECT_TRUE(same_bytes(ask(batch).features, want.features));
      EXPECT_EQ(teacher.cache()->statistics().hits, static_cast<std::uint64_t>(rows));
      batch.variant.assign(40, 9);  // other masks: other words
      ask(batch);
      EXPECT_EQ(teacher.cache()->statistics().misses, static_cast<std::uint64_t>(2 * rows));
      for (const std::uint64_t bytes : {0, 5000, 1 << 20})  // nothing is kept, some, all
        for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{3, 4}, {8, 37}}) {
          use_fresh_cache(bytes);
          const nn::Batch part = batch.slice(begin, end);
          const auto row_of = [&](std::int64_t b) {
            return std::lower_bound(of_row.begin(), of_row.end(), b) - of_row.begin();
          };
          for (int round = 0; round < 2; ++round)
            EXPECT_TRUE(
                same_bytes(ask(part).features, want.features.slice(row_of(begin), row_of(end))))
                << arch << " " << name_of(dtype) << " " << begin << " " << bytes;
        }
    }
}

TEST(LogitCache, features_of_another_width_or_of_no_head_are_refused) {
  const auto key = [](const Teacher& teacher, std::int64_t width) {
    return std::make_shared<LogitCache>(
        LogitCacheKey{"data", teacher.hash(), width, "", CachedRows::kFeatures});
  };
  Teacher teacher(small_masked_lm());
  EXPECT_THROW(teacher.use_cache(key(teacher, 60)), Error);
  teacher.use_cache(key(teacher, 8));
  const nn::Inputs inputs = texts(2, 1, DType::kF32);
  const std::vector<std::int64_t> samples{0, 1};
  std::vector<float> values(16);
  EXPECT_THROW(teacher.cached_logits([&] { return inputs; }, samples, {}, values), Error);
  EXPECT_THROW(teacher.features(inputs, samples, {}, {}), Error);  // which rows?
  Teacher images(model(1));
  EXPECT_THROW(images.use_cache(key(images, 4)), Error);
}

TEST(LogitCache, several_threads) {
  Teacher teacher(model(1));
  const Tensor x = randn({64, 4}, 1);
  std::vector<std::int64_t> all(64);
  std::iota(all.begin(), all.end(), 0);
  teacher.use_cache(cache_of(teacher));
  const Tensor online = teacher.logits(x, all, {});
  teacher.use_cache(cache_of(teacher));
  std::vector<std::thread> threads;
  std::vector<int> bad(4);
  for (std::size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (std::int64_t i = 0; i < 200; ++i) {
        const std::int64_t row = (i * 7 + static_cast<std::int64_t>(t)) % 63;
        const std::vector<std::int64_t> samples{row, row + 1};
        const auto got = teacher.logits(x.slice(row, row + 2), samples, {}).to_vector<float>();
        const auto want = online.slice(row, row + 2).to_vector<float>();
        bad[t] += got != want;
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(bad, std::vector<int>(4));
}

TEST(LogitCache, errors) {
  Teacher teacher(model(1));
  EXPECT_THROW(teacher.use_cache(std::make_shared<LogitCache>(LogitCacheKey{"d", "other", 3})),
               Error);
  EXPECT_THROW(
      teacher.use_cache(std::make_shared<LogitCache>(LogitCacheKey{"d", teacher.hash(), 2})),
      Error);
  teacher.use_cache(std::make_shared<LogitCache>(LogitCacheKey{"d", teacher.hash(), 3}));
  EXPECT_THROW(teacher.logits(randn({2, 4}, 1), std::vector<std::int64_t>{1}, {}), Error);
  EXPECT_THROW(teacher.logits(randn({1, 4}, 1), std::vector<std::int64_t>{1},
                              std::vector<std::uint32_t>{1, 2}),
               Error);
}

}  // namespace
}  // namespace retort::test
